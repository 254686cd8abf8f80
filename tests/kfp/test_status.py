"""status, cancel and submit --wait: what each shows of a run, and how it ends."""

import dataclasses
import datetime
import io
import json
from typing import Any

import pytest
from kubernetes.client import ApiClient
from rich.console import Console

from podium.errors import ExitCode, UserError
from podium_pipelines import watch
from podium_pipelines.pods import stage_pods
from podium_pipelines.remote import RunState, ServiceUnreachable, Task
from support.fake_kubernetes import FakeKubernetes, pod
from support.fake_services import stage_nodes
from support.services import Service, run_in

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


def test_stages_with_time_and_what_came_from_the_cache(kubeflow: Service, cluster: FakeKubernetes) -> None:
    run_in(
        kubeflow,
        "RUNNING",
        stage_nodes("reward", "RUNNING", seconds=(40, 0)),
        stage_nodes("prepare", "SUCCEEDED", seconds=(0, 10), executors=("SKIPPED",)),
        stage_nodes("sample", "SUCCEEDED", seconds=(10, 95)),
        stages=("prepare", "reward", "sample", "gates"),
    )
    result = kubeflow.on("status", "run-0")
    lines = result.stdout.splitlines()
    assert result.exit_code == 0
    assert lines[0] == "prepare   succeeded  cached"
    assert lines[1].startswith("reward    running  ")
    assert lines[2:] == ["sample    succeeded  1 min 25 s", "gates     pending", "run       running"]


def test_a_stage_that_ran_beside_a_cached_one_is_not_cached(kubeflow: Service, cluster: FakeKubernetes) -> None:
    run_in(
        kubeflow,
        "SUCCEEDED",
        stage_nodes("reward", "SUCCEEDED", seconds=(0, 60)),
        stage_nodes("sample", "SUCCEEDED", seconds=(5, 8), executors=("SKIPPED",)),
    )
    assert kubeflow.on("status", "run-0").stdout.splitlines() == [
        "reward    succeeded  1 min 0 s",
        "sample    succeeded  cached",
        "run       succeeded",
    ]


def test_why_a_stage_failed_are_its_own_last_words(kubeflow: Service, cluster: FakeKubernetes) -> None:
    log = (
        "podium reward: step 1\npodium: error: data.preferences: row 7: no chosen\n"
        'I0101 00:00:01.000001      12 launcher_v2.go:187] ExecutorOutput: {\n  "a": 1\n}\n'
        "F0101 00:00:02.000001      12 main.go:54] failed to execute component: exit status 2\n"
        'time=2026-01-01T00:00:02.000Z level=INFO msg="sub-process exited" argo=true error="exit status 1"\n'
        "Error: exit status 1\n"
    )
    cluster.pods = [pod("a", "reward", "Failed", log="first"), pod("b", "reward", "Failed", log=log)]
    run_in(
        kubeflow,
        "FAILED",
        stage_nodes("reward", "FAILED", executors=("FAILED", "FAILED")),
        stage_nodes("ppo", "RUNTIME_STATE_UNSPECIFIED"),
    )
    result = kubeflow.on("status", "run-0")
    assert result.exit_code == ExitCode.FAULT
    assert result.stdout.splitlines() == [
        "reward    failed  30.0 s  2 attempts",
        "          podium: error: data.preferences: row 7: no chosen",
        "ppo       skipped",
        "run       failed",
    ]


def test_why_without_words_are_the_launcher_s(kubeflow: Service, cluster: FakeKubernetes) -> None:
    log = "E0101 00:00:01.000001      12 launcher_v2.go:449] failed to upload output artifact: no such bucket\n"
    cluster.pods = [pod("a", "reward", "Failed", log=log)]
    run_in(kubeflow, "FAILED", stage_nodes("reward", "FAILED"))
    assert "          failed to upload output artifact: no such bucket" in kubeflow.on("status", "run-0").stdout


def test_a_run_whose_gates_failed_ends_with_3(kubeflow: Service, cluster: FakeKubernetes) -> None:
    run_in(kubeflow, "FAILED", stage_nodes("gates", "FAILED"))
    cluster.pods = [pod("a", "gates", "Failed", log="podium: gates failed: min_win_rate: 0.4 is under 0.5\n")]
    assert kubeflow.on("status", "run-0").exit_code == ExitCode.GATES_FAILED
    cluster.pods = [pod("a", "gates", "Failed", log="podium: error: samples: no results\n")]
    assert kubeflow.on("status", "run-0").exit_code == ExitCode.FAULT
    # Nobody can say why: the likeliest.
    cluster.refused = 401
    result = kubeflow.on("status", "run-0")
    assert result.exit_code == ExitCode.GATES_FAILED
    assert result.stderr.startswith(
        "Note: why a stage failed or waits is not known here: the cluster of your kubeconfig"
    )


TROUBLES = [
    (
        {"state": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}, "phase": "Failed"},
        "OOMKilled: it needed more than its limit of 2Gi; raise platform.resources.ppo.memory",
    ),
    (
        {"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory."},
        "Evicted: The node was low on resource: memory.",
    ),
    (
        {
            "phase": "Failed",
            "conditions": [
                {
                    "type": "DisruptionTarget",
                    "status": "True",
                    "reason": "PreemptionByScheduler",
                    "message": "preempted",
                }
            ],
        },
        "PreemptionByScheduler: preempted",
    ),
    (
        {
            "phase": "Pending",
            "state": {"waiting": {"reason": "ImagePullBackOff", "message": 'Back-off pulling image "trainer:1"'}},
        },
        'ImagePullBackOff: Back-off pulling image "trainer:1"; '
        "name an image that the cluster can pull in platform.image",
    ),
    (
        {
            "phase": "Pending",
            "state": {"waiting": {"reason": "CreateContainerConfigError", "message": "no secret keys"}},
        },
        "CreateContainerConfigError: no secret keys",
    ),
    (
        {
            "phase": "Pending",
            "containerStatuses": [],
            "conditions": [
                {
                    "type": "PodScheduled",
                    "status": "False",
                    "reason": "Unschedulable",
                    "message": "0/3 nodes are available: 3 Insufficient nvidia.com/gpu.",
                }
            ],
        },
        "Unschedulable: 0/3 nodes are available: 3 Insufficient nvidia.com/gpu.; see platform.resources.ppo",
    ),
]


@pytest.mark.parametrize(("given", "text"), TROUBLES, ids=lambda value: value.split(":")[0] if value is str else None)
def test_what_only_the_pod_knows(kubeflow: Service, cluster: FakeKubernetes, given: dict[str, Any], text: str) -> None:
    waits = given["phase"] == "Pending"
    cluster.pods = [pod("a", "ppo", **given)]
    run_in(kubeflow, "RUNNING" if waits else "FAILED", stage_nodes("ppo", "RUNNING" if waits else "FAILED"))
    result = kubeflow.on("status", "run-0")
    assert f"          {text}" in result.stdout.splitlines()
    assert result.exit_code == (0 if waits else 1)
    assert result.stdout.startswith("ppo       pending" if waits else "ppo       failed")


def test_a_pod_that_just_came_is_given_time_to_find_a_node(kubeflow: Service, cluster: FakeKubernetes) -> None:
    conditions = [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes"}]
    ages = [pod("a", "reward", "Pending", conditions=conditions), pod("b", "ppo", "Pending", conditions=conditions)]
    ages[1]["metadata"]["creationTimestamp"] = f"{datetime.datetime.now(datetime.UTC):%Y-%m-%dT%H:%M:%SZ}"
    found = stage_pods(ApiClient().deserialize(Answered(ages), "V1PodList").items)
    assert [one.trouble and one.trouble.stuck for one in found] == [True, False]


@dataclasses.dataclass(frozen=True)
class Answered:
    """An answer of Kubernetes, as its client reads it."""

    items: list[dict[str, Any]]

    @property
    def data(self) -> str:
        """Return its text."""
        return json.dumps({"items": self.items})


def test_a_pod_that_waits_without_a_reason_of_its_own_has_events(kubeflow: Service, cluster: FakeKubernetes) -> None:
    cluster.pods = [pod("a", "ppo", "Pending")]
    cluster.events = [
        {"metadata": {}, "involvedObject": {}, "reason": reason, "message": "m", "lastTimestamp": time}
        for reason, time in (("FailedMount", "2026-01-01T00:00:09Z"), ("Earlier", "2026-01-01T00:00:01Z"))
    ]
    run_in(kubeflow, "RUNNING", stage_nodes("ppo", "RUNNING"))
    assert "          FailedMount: m\n" in kubeflow.on("status", "run-0").stdout
    assert cluster.requests[-1].query["fieldSelector"] == "involvedObject.name=a,type=Warning"


def test_a_stage_without_a_pod_has_what_argo_says(kubeflow: Service, cluster: FakeKubernetes) -> None:
    quota = 'pods "rlhf-x" is forbidden: exceeded quota: gpus'
    cluster.nodes = {
        "rlhf-x": "child failed",
        "rlhf-x.root(0).ppo(0)": "child failed",
        "rlhf-x.root(0).ppo(0).executor(0)": quota,
        "rlhf-x.root(0).sample-driver": "admission webhook denied the request",
        "rlhf-x.root(0).reward(0).executor(0)": "Error (exit code 1)",
    }
    cluster.pods = [pod("a", "reward", "Running")]
    stages = ("ppo", "RUNNING"), ("sample", "FAILED"), ("reward", "RUNNING"), ("evaluate", "PENDING")
    run_in(kubeflow, "RUNNING", *(stage_nodes(stage, state) for stage, state in stages))
    lines = kubeflow.on("status", "run-0").stdout.splitlines()
    assert [" ".join(line.split()[:2]) for line in lines if line[0] != " "] == [
        "reward running",
        "sample failed",
        "ppo pending",
        "evaluate pending",
        "run running",
    ]
    assert [line.strip() for line in lines if line[0] == " "] == ["admission webhook denied the request", quota]


def test_a_driver_that_failed_speaks_for_its_stage(kubeflow: Service, cluster: FakeKubernetes) -> None:
    log = "F0101 00:00:02.000001      12 main.go:54] failed to resolve inputs\n"
    cluster.pods = [pod("a", "ppo", "Failed", driver=True, log=log)]
    run_in(kubeflow, "FAILED", stage_nodes("ppo", "FAILED"))
    assert "          failed to resolve inputs\n" in kubeflow.on("status", "run-0").stdout


def test_with_a_run_its_hosts_end(kubeflow: Service, cluster: FakeKubernetes) -> None:
    cluster.kinds = ("trainer.kubeflow.org",)
    kubeflow.submit()
    assert kubeflow.on("cancel", "run-0").exit_code == 0
    name = kubeflow.fake.runs["run-0"]["display_name"]
    deleted = [(one.path, one.query) for one in cluster.requests if one.method == "DELETE"]
    assert [path.rpartition("/")[2] for path, _ in deleted] == ["trainjobs", "jobsets", "pods"]
    assert {query["labelSelector"] for _, query in deleted} == {f"podium.dev/run={name}"}
    assert deleted[-1][1]["gracePeriodSeconds"] == "5"


def test_without_rights_on_hosts_a_run_is_stopped_all_the_same(kubeflow: Service, cluster: FakeKubernetes) -> None:
    cluster.refused = 403
    kubeflow.submit()
    assert kubeflow.on("cancel", "run-0").exit_code == 0


def test_a_task_that_starts_several_hosts_speaks_for_its_stage(kubeflow: Service, cluster: FakeKubernetes) -> None:
    log = "podium launch ppo: host 1 was out of memory; write more in platform.resources\n"
    cluster.pods = [pod("a", "ppo", "Failed", launched=True, log=log)]
    run_in(kubeflow, "FAILED", stage_nodes("ppo", "FAILED"))
    assert "host 1 was out of memory" in kubeflow.on("status", "run-0").stdout


def test_a_run_that_was_stopped_is_canceled(kubeflow: Service, cluster: FakeKubernetes) -> None:
    kubeflow.submit()
    assert kubeflow.on("cancel", "run-0").exit_code == 0
    result = kubeflow.on("status", "run-0")
    assert result.stdout.startswith("prepare   canceled")
    assert result.stdout.endswith("run       canceled  2 min 0 s\n")
    assert result.exit_code == ExitCode.FAULT


def test_waiting_says_each_change_once_and_leaves_out_kfp_s_own_tasks(
    kubeflow: Service, cluster: FakeKubernetes
) -> None:
    kubeflow.fake.states = ("PENDING", "RUNNING", "RUNNING", "SUCCEEDED")
    lines = kubeflow.submit("--wait").stdout.splitlines()[3:]
    shown = [line for line in lines if line.startswith(("prepare", "reward", "root", "executor"))]
    assert shown == [
        "prepare   running",
        "reward    running",
        "prepare   succeeded  30.0 s",
        "reward    succeeded  30.0 s",
    ]
    assert lines[-1] == "podium collect run-0 --open brings report and model here"


def test_waiting_for_a_run_that_fails_ends_as_it_did(kubeflow: Service, cluster: FakeKubernetes) -> None:
    kubeflow.fake.states = ("PENDING", "FAILED")
    cluster.pods = [pod("a", "reward", "Failed", log="podium: error: no\n")]
    result = kubeflow.submit("--wait")
    assert result.exit_code == ExitCode.FAULT
    assert "          podium: error: no" in result.stdout.splitlines()
    assert "Note:" not in result.stdout
    assert result.stderr == "The run ended as failed; podium logs run-0 shows more\n"


def test_waiting_for_a_stage_that_cannot_start_ends(kubeflow: Service, cluster: FakeKubernetes) -> None:
    kubeflow.fake.states = ("RUNNING",)
    cluster.pods = [pod("a", "reward", "Pending", state={"waiting": {"reason": "InvalidImageName", "message": "no"}})]
    result = kubeflow.submit("--wait")
    assert isinstance(result.exception, UserError)
    assert str(result.exception).splitlines() == [
        "reward cannot start: InvalidImageName: no; name an image that the cluster can pull in platform.image",
        "The run waits for it: mend it and write podium status run-0, or end it with podium cancel run-0",
    ]


def test_waiting_says_once_that_the_pods_cannot_be_seen(kubeflow: Service, cluster: FakeKubernetes) -> None:
    cluster.refused = 403
    kubeflow.fake.states = ("RUNNING", "RUNNING", "RUNNING", "SUCCEEDED")
    lines = kubeflow.submit("--wait").stdout.splitlines()
    assert len([line for line in lines if line.startswith("Note: why a stage failed or waits is not known here")]) == 1


class Looks:
    """A service that gives one answer after the other."""

    def __init__(self, *answers: RunState | Exception) -> None:
        self.answers = list(answers)

    def state(self, run: str) -> RunState:
        """Return the next answer, or raise it."""
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def test_waiting_outlives_a_service_that_is_away_for_a_moment(no_traces: None) -> None:
    gone, done = ServiceUnreachable("gone"), RunState("succeeded", {})
    console = Console(file=io.StringIO())
    looks: Any = Looks(*[gone] * 5, RunState("running", {}), *[gone] * 5, done)
    assert watch.follow(looks, "run-0", console) is done
    with pytest.raises(ServiceUnreachable, match="gone"):
        watch.follow(Looks(*[gone] * 6), "run-0", console)  # type: ignore[arg-type]  # it is asked for the state alone


def test_a_terminal_sees_one_table_that_moves(no_traces: None) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=60)
    running, ended = Task("running"), Task("failed", attempts=2, reason=("podium: error: no",))
    looks: Any = Looks(RunState("running", {"ppo": running}), RunState("failed", {"ppo": ended}))
    assert watch.follow(looks, "run-0", console).exit_code == ExitCode.FAULT
    shown = console.file.getvalue()  # type: ignore[attr-defined]  # a StringIO
    assert "running" in shown
    last = shown[shown.rindex("ppo") :]
    assert all(word in last for word in ("failed", "2 attempts", "podium: error: no", "run"))
    # It goes back over its lines to write the next state.
    assert "\x1b[1A" in shown or "\x1b[2K" in shown


def test_vertex_tells_cached_stages_and_why_one_failed(vertex: Service) -> None:
    vertex.fake.states = ("RUNNING", "FAILED")
    vertex.submit()
    (name,) = vertex.fake.jobs
    result = vertex.on("status", name)
    assert result.exit_code == ExitCode.FAULT
    assert result.stdout.splitlines() == [
        "prepare   succeeded  cached",
        "reward    failed  1 min 5 s  2 attempts",
        "          out of quota",
        "run       failed  2 min 0 s",
        "          out of quota",
    ]


def test_vertex_waits_and_stops(vertex: Service) -> None:
    assert vertex.submit("--wait").exit_code == 0
    (name,) = vertex.fake.jobs
    vertex.fake.looks[name] = 0
    assert vertex.on("cancel", name).exit_code == 0
    result = vertex.on("status", name)
    assert "run       canceled" in result.stdout
    assert result.exit_code == ExitCode.FAULT
