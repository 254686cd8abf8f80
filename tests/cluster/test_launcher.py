"""Tasks of the compiled pipeline start their phases on several hosts, with files in an object store alone."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from podium.config import STAGE_TABLE
from support.cluster import Cluster
from support.cluster_tasks import BUCKET, WORKFLOWS, Store, config, task_pod
from support.gang import Gang, write
from support.outcome import BOUND, apart


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder in which this machine ran the same stages by one process."""
    folder = tmp_path_factory.mktemp("one")
    write(folder)
    gang = Gang(folder, 1)
    for stage in ("prepare", "reward", "ppo"):
        for code, output in gang.run(stage):
            assert code == 0, output
    return folder


@pytest.fixture(scope="module")
def store(cluster: Cluster, one: Path) -> Iterator[Store]:
    with Store.begin(cluster) as found:
        for name in ("base", "out/prepare"):
            found.put(one / name, f"{BUCKET}/{name}")
        yield found


def start(
    store: Store, one: Path, stage: str, run: str, *, reward_of: str = "", workflow: str = "", **changes: Any
) -> "Attempt":
    """Start a task of a stage as a Job, whose pod starts again where it is killed; reward_of: whose reward model."""
    values = json.loads((one / "rlhf.json").read_text(encoding="utf-8"))
    values["model"] = {"name_or_path": f"{BUCKET}/base"}
    values["data"] |= {"preferences": f"{BUCKET}/pairs.jsonl", "prompts": f"{BUCKET}/prompts.jsonl"}
    for section, more in changes.items():
        values[section] = values.get(section, {}) | more
    spec = STAGE_TABLE[stage]
    runs = {"prepare": "out", "reward": reward_of}
    places = {x.name: f"{BUCKET}/{runs[x.stage]}/{x.stage}/{x.output}" for x in spec.takes if not x.optional}
    places |= {name: f"{BUCKET}/{run}/{stage}/{name}" for name in spec.outputs}
    body = task_pod(config(values, 2), stage, run, places)
    labels = {"workflows.argoproj.io/workflow": workflow} if workflow else {}
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": f"{run}-task"},
        "spec": {"backoffLimit": 3, "template": {"metadata": {"labels": labels}, "spec": body}},
    }
    store.cluster.apply(job)
    return Attempt(store.cluster, run, stage)


class Attempt:
    """A task's Job, which starts the hosts' job."""

    def __init__(self, cluster: Cluster, run: str, stage: str) -> None:
        self.cluster, self.name, self.hosts = cluster, f"{run}-task", f"{run}-{stage}"
        self.of_hosts = ("pods", "-l", f"podium.dev/run={run}")

    def has_hosts(self) -> bool:
        """Tell whether the hosts' job is there."""
        return self.hosts in [one["metadata"]["name"] for one in self.cluster.get("trainjobs")["items"]]

    def pods(self) -> list[dict[str, Any]]:
        """Return the task's pods, the first one first."""
        found = self.cluster.get("pods", "-l", f"batch.kubernetes.io/job-name={self.name}")["items"]
        return sorted(found, key=lambda pod: str(pod["metadata"]["creationTimestamp"]))

    def log(self) -> str:
        """Return what the task printed last."""
        return self.cluster.kubectl("logs", self.pods()[-1]["metadata"]["name"]).decode()

    def ended(self, seconds: float) -> int:
        """Wait until a pod of the task ended; returns its exit code."""
        pod: Mapping[str, Any] = self.cluster.wait(self.name, self._done, seconds=seconds)
        return int(pod["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"])

    def _done(self) -> Any:
        return next((pod for pod in self.pods() if pod["status"]["phase"] in ("Succeeded", "Failed")), None)


def test_two_stages_by_two_hosts_leave_what_one_process_leaves(store: Store, one: Path, tmp_path: Path) -> None:
    reward = start(store, one, "reward", "two")
    assert reward.ended(400) == 0, reward.log()
    assert "podium reward: done" in reward.log()
    ppo = start(store, one, "ppo", "twop", reward_of="two")
    assert ppo.ended(400) == 0, ppo.log()
    for stage, place in (("reward", f"{BUCKET}/two/reward"), ("ppo", f"{BUCKET}/twop/ppo")):
        assert apart(one / "out" / stage, store.fetch(place, tmp_path / stage)) <= BOUND


def test_a_task_whose_pod_goes_finds_its_hosts_again(store: Store, one: Path) -> None:
    task = start(store, one, "reward", "again", reward={"max_steps": 12})
    cluster = store.cluster
    cluster.wait("the hosts", lambda: cluster.get(*task.of_hosts)["items"], seconds=60)
    cluster.kubectl("delete", "pod", task.pods()[0]["metadata"]["name"], "--wait=false")
    cluster.wait("a second pod", lambda: len(task.pods()) == 1 and not deleting(task.pods()[0]), seconds=120)
    assert task.ended(400) == 0, task.log()
    assert "is there; following it" in task.log()
    assert "podium reward: done" in task.log()


def deleting(pod: Mapping[str, Any]) -> bool:
    return "deletionTimestamp" in pod["metadata"]


def runs_on(pod: Mapping[str, Any]) -> bool:
    return not deleting(pod) and pod["status"]["phase"] == "Running"


@pytest.fixture
def workflow(cluster: Cluster) -> Iterator[str]:
    """A workflow of Argo, where there is no Argo: its kind is made, if it is not there."""
    made = "workflows.argoproj.io" not in cluster.kubectl("get", "crd", "-o", "name").decode()
    if made:
        cluster.apply(WORKFLOWS)
        cluster.kubectl("wait", "--for=condition=Established", "crd/workflows.argoproj.io")
    meta = {"name": "rlhf-x"}
    cluster.apply({"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "metadata": meta, "spec": {}})
    yield meta["name"]
    if made:
        cluster.kubectl("delete", "crd", "workflows.argoproj.io")


@pytest.mark.parametrize("ended", [True, False])
def test_hosts_end_with_their_run_and_not_with_a_pod_that_is_moved(
    store: Store, one: Path, workflow: str, *, ended: bool
) -> None:
    task = start(store, one, "reward", f"moved-{int(ended)}", workflow=workflow, reward={"max_steps": 500})
    cluster = store.cluster
    cluster.wait("the hosts", lambda: cluster.get(*task.of_hosts)["items"], seconds=60)
    if ended:
        patch = '{"spec": {"shutdown": "Terminate"}}'
        cluster.kubectl("patch", "workflow", workflow, "--type=merge", "-p", patch)
    cluster.kubectl("delete", "pod", task.pods()[0]["metadata"]["name"], "--wait=false")
    if ended:
        cluster.wait("their end", lambda: not cluster.get(*task.of_hosts)["items"], seconds=30)
    else:
        cluster.wait("a second pod", lambda: any(map(runs_on, task.pods())), seconds=60)
        cluster.wait("its words", lambda: "following it" in task.log(), seconds=60)
    assert task.has_hosts() != ended
    cluster.kubectl("delete", "job", task.name, "--wait=false")
    cluster.wait("the end of all", lambda: not task.has_hosts(), seconds=30)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"platform": {"image": "docker.io/podium/absent:1"}}, "has no image"),
        ({"model": {"name_or_path": f"{BUCKET}/absent"}}, f"{BUCKET}/absent"),
    ],
)
def test_what_cannot_start_is_said(store: Store, one: Path, changes: dict[str, Any], said: str) -> None:
    task = start(store, one, "reward", f"no-{min(changes)}", **changes)
    assert task.ended(300) == 2
    assert said in task.log()
