"""The task that starts a phase on several hosts: what it makes, how it follows, and how it ends."""

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest
import yaml

from podium.config import PodiumConfig
from podium.errors import UserError
from podium_pipelines.compiler import compile_text
from podium_pipelines.multihost.cluster import Here
from podium_pipelines.multihost.follow import AWAY_S, IMAGE_S, Follower, JobFailed, begin
from podium_pipelines.multihost.jobs import Jobs, JobState, Pod, Unreachable
from podium_pipelines.multihost.task import VARIABLE, job_name, read_hosts, workload, write_outputs

HERE = Here("team", {"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "name": "rlhf-x", "uid": "u1"}, "rlhf-x")


@dataclass
class Script:
    """A cluster with one job, whose states, pods and log lines come one after another."""

    states: list[JobState | Exception | None]
    pods_seen: Sequence[Sequence[Pod]] = ((),)
    lines: Mapping[str, Sequence[str]] = field(default_factory=dict)
    kind: str = "TrainJob"
    made: list[Mapping[str, Any]] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    looks: int = 0

    def find(self, name: str) -> JobState | None:
        self.looks += 1
        found = self.states[min(self.looks, len(self.states)) - 1]
        if isinstance(found, Exception):
            raise found
        return found

    def pods(self, name: str) -> Sequence[Pod]:
        return self.pods_seen[min(self.looks, len(self.pods_seen)) - 1]

    def log(self, pod: str, after: int = 0) -> Iterator[tuple[int, str]]:
        shown = self.lines.get(pod, ())
        return iter([(at, line) for at, line in enumerate(shown, 1) if at > after])

    def create(self, job: Mapping[str, Any]) -> None:
        self.made.append(job)

    def delete(self, name: str) -> None:
        self.deleted.append(name)


def pod(index: int, **values: Any) -> Pod:
    usual = {
        "name": f"p{index}",
        "place": f"host {index}",
        "started": True,
        "exit_code": None,
        "waits_for": "",
        "no_image": False,
    }
    return Pod(index=index, **{**usual, "out_of_memory": False, **values})


def followed(script: Script, *, clock: Iterator[float] | None = None) -> list[str]:
    said: list[str] = []
    times = itertools.repeat(0.0) if clock is None else clock
    follower = Follower(cast(Jobs, script), "job", said.append, clock=lambda: next(times), sleep=lambda seconds: None)
    try:
        follower.to_end()
    except JobFailed as failure:
        said.append(f"{int(failure.code)}: {failure}")
    return said


def state(word: str, message: str = "", owner: str = "u1") -> JobState:
    return JobState(word, message, owner)


def job() -> dict[str, Any]:
    return {"metadata": {"name": "job", "ownerReferences": [dict(HERE.owner)]}}


def test_an_attempt_of_the_same_run_finds_the_job_again() -> None:
    script = Script([state("active")])
    begin(cast(Jobs, script), job(), lambda text: None)
    assert (script.made, script.deleted) == ([], [])


def test_a_finished_job_of_an_earlier_run_makes_room() -> None:
    script = Script([state("complete", owner="u0"), None])
    begin(cast(Jobs, script), job(), lambda text: None)
    assert script.deleted == ["job"]
    assert len(script.made) == 1


def test_two_runs_of_one_name_are_not_mixed() -> None:
    with pytest.raises(UserError, match="belongs to another run"):
        begin(cast(Jobs, Script([state("active", owner="u0")])), job(), lambda text: None)


def test_the_first_host_s_lines_are_said_once_and_those_after_a_restart_too() -> None:
    script = Script(
        [state("active"), state("active"), state("complete")],
        [[pod(0), pod(1)], [pod(0, name="again")], [pod(0, name="again")]],
        {"p0": ["one", "two"], "again": ["three"], "p1": ["not said"]},
    )
    assert followed(script) == ["one", "two", "three"]


def test_what_a_host_waits_for_is_said_when_it_changes() -> None:
    waits = [pod(1, started=False, waits_for="Unschedulable: no node")]
    script = Script([state("active")] * 3 + [state("complete")], [waits, waits, [pod(1)]])
    assert followed(script) == ["host 1 waits: Unschedulable: no node"]


def test_an_image_that_stays_away_ends_the_task() -> None:
    script = Script([state("active")], [[pod(0, started=False, waits_for="ErrImagePull: none", no_image=True)]])
    said = followed(script, clock=itertools.count(step=IMAGE_S / 4))
    assert said[-1] == "2: host 0 has no image: ErrImagePull: none"


@pytest.mark.parametrize(
    ("pods", "end"),
    [
        ([pod(0, exit_code=75), pod(1, exit_code=2)], "2: host 1 ended with exit code 2: why"),
        ([pod(0, exit_code=134), pod(1, exit_code=137, out_of_memory=True)], "1: host 1 was out of memory"),
        ([pod(0, exit_code=75), pod(1)], "1: host 0 ended with exit code 75: why"),
        ([], "1: why"),
    ],
)
def test_the_host_that_failed_is_named_and_quoted(pods: list[Pod], end: str) -> None:
    said = followed(Script([state("failed", "why")], [pods], {"p1": ["podium: error: mend this"]}))
    assert said[-1].startswith(end)
    assert ("host 1: podium: error: mend this" in said) == ("host 1" in end)


def test_a_cluster_that_is_away_for_a_while_does_not_end_the_task() -> None:
    away = Unreachable("TrainJob job: 503")
    said = followed(Script([state("active"), away, away, state("complete")], [[pod(0)]], {"p0": ["one"]}))
    assert said == ["one", "TrainJob job: 503; looking again", "TrainJob job: 503; looking again"]


def test_each_time_anew() -> None:
    states = [state("active"), Unreachable("503")] * 4 + [state("complete")]
    assert len(followed(Script(states), clock=itertools.count(step=AWAY_S * 0.4))) == 4


def test_one_that_stays_away_does() -> None:
    with pytest.raises(Unreachable):
        followed(Script([Unreachable("503")]), clock=itertools.count(step=AWAY_S / 3))


def test_a_job_that_somebody_deleted_is_no_success() -> None:
    with pytest.raises(UserError, match="was deleted"):
        followed(Script([None]))


def test_names_of_jobs_are_labels_with_room() -> None:
    name = job_name("Team_rlhf-a-very-long-name-of-a-run-20261128-101010", "evaluate")
    assert name.endswith("20261128-101010-evaluate")
    assert len(name) <= 40
    assert name == name.lower()
    assert name[0].isalnum()


def executor_input(uri: str = "s3://b/x") -> dict[str, Any]:
    metrics = {"artifacts": [{"uri": uri, "metadata": {"a": 1}}]}
    return {
        "inputs": {"parameterValues": {"config": {}}},
        "outputs": {"artifacts": {"metrics": metrics}, "outputFile": "/x/out.json"},
    }


def compiled(**platform: Any) -> dict[str, Any]:
    """Return the container of the ppo task and the Kubernetes settings of it."""
    config = PodiumConfig.model_validate({"model": {"name_or_path": "gs://b/m"}, "platform": platform})
    spec, *rest = yaml.safe_load_all(compile_text(config, "kubeflow"))
    executors = spec["deploymentSpec"]["executors"]
    kubernetes = rest[0]["platforms"]["kubernetes"]["deploymentSpec"]["executors"] if rest else {}
    return {**executors["exec-ppo"]["container"], "kubernetes": kubernetes.get("exec-ppo", {})}


TPU = {"hosts": 4, "accelerator": "v5e", "topology": "4x4", "count": 4, "memory": "100Gi"}


def test_the_compiled_task_starts_the_hosts_and_takes_none_of_their_chips() -> None:
    task = compiled(
        resources={"ppo": TPU}, kubeflow={"storage": "s3://b"}, secrets={"keys": {"id": "AWS_ACCESS_KEY_ID"}}
    )
    assert task["command"] == ["python", "-m", "podium", "launch", "ppo"]
    assert task["args"] == ["--executor-input", "{{$}}"]
    assert task["image"].startswith("podium/launcher:")
    assert "accelerator" not in task["resources"]
    assert "nodeSelector" not in task["kubernetes"]
    assert task["kubernetes"]["secretAsEnv"][0]["secretName"] == "keys"
    env = {one["name"]: one["value"] for one in task["env"]}
    made = workload("ppo", json.dumps(executor_input()), read_hosts(env), HERE, env | {"STORAGE": "s3://b"})
    assert made.resources.hosts == 4
    assert made.image.startswith("podium/trainer:")
    assert {"name": "STORAGE", "value": "s3://b"} in made.env
    assert made.env[0]["valueFrom"]["secretKeyRef"] == {"name": "keys", "key": "id"}
    assert made.owner == HERE.owner


@pytest.mark.parametrize(
    ("platform", "said"),
    [
        ({"resources": {"ppo": {"hosts": 2}}}, "platform.kubeflow.storage"),
        (
            {"resources": {"ppo": {**TPU, "hosts": 8}}, "kubeflow": {"storage": "s3://b"}},
            "platform.kubeflow.launcher: jobset",
        ),
        ({"resources": {"ppo": {**TPU, "hosts": 3}}, "kubeflow": {"storage": "s3://b"}}, "hosts: 4"),
    ],
)
def test_hosts_that_cannot_work_are_refused_when_compiling(platform: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=r"platform\.resources\.ppo") as refused:
        compiled(**platform)
    assert said in str(refused.value)


def test_pods_read_the_task_s_artifacts_by_uri() -> None:
    hosts = read_hosts({VARIABLE: json.dumps({"kind": "TrainJob", "image": "i", "resources": {"hosts": 2}})})
    made = workload("ppo", json.dumps(executor_input()), hosts, HERE, {})
    assert made.name == "rlhf-x-ppo"
    inside = json.loads(made.command[-1])
    assert inside["outputs"]["artifacts"] == executor_input()["outputs"]["artifacts"]
    assert inside["outputs"]["outputFile"].startswith("/tmp/")
    with pytest.raises(UserError, match=r"minio://.*platform\.kubeflow\.storage"):
        workload("ppo", json.dumps(executor_input("minio://b/x")), hosts, HERE, {})


@pytest.mark.parametrize("env", [{}, {VARIABLE: "{}"}, {VARIABLE: "nothing"}])
def test_a_task_without_its_variable_says_what_makes_it(env: dict[str, str]) -> None:
    with pytest.raises(UserError, match=VARIABLE):
        read_hosts(env)


def test_the_file_of_outputs_shows_the_metrics(tmp_path: Path) -> None:
    message = executor_input(str(tmp_path))
    message["outputs"]["outputFile"] = str(tmp_path / "deep" / "out.json")
    (tmp_path / "metrics.json").write_text('{"kl": 0.5}', encoding="utf-8")
    write_outputs(message)
    written = json.loads((tmp_path / "deep" / "out.json").read_text(encoding="utf-8"))
    assert written["artifacts"]["metrics"]["artifacts"][0]["metadata"] == {"a": 1, "kl": 0.5}
