"""What a phase on several hosts is rendered to; tests/cluster gives the same to a real Kubernetes."""

from dataclasses import replace
from typing import Any

import pytest

from podium.config import Resources
from podium.errors import UserError
from podium.parallel.launch import read_launch
from podium_pipelines.multihost.job_set import job_set
from podium_pipelines.multihost.manifests import manifests
from podium_pipelines.multihost.train_job import train_job
from podium_pipelines.multihost.workload import Workload


def workload(**resources: Any) -> Workload:
    return Workload(
        name="rlhf-1-ppo",
        image="podium/trainer:1",
        command=("podium", "ppo"),
        resources=Resources(**resources),
        where="platform.resources.ppo",
        env=[{"name": "STORAGE", "value": "s3://b"}],
        labels={"podium.dev/run": "rlhf-1"},
        owner={"apiVersion": "v1", "kind": "Pod", "name": "launcher", "uid": "u"},
    )


def pod_of(job: dict[str, Any]) -> dict[str, Any]:
    """Return what a TrainJob adds to its runtime's pods, or the pod of a JobSet."""
    if job["kind"] == "TrainJob":
        job = job["spec"]["runtimePatches"][0]["trainingRuntimeSpec"]["template"]
    pod: dict[str, Any] = job["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    return pod


def environments(job: dict[str, Any]) -> list[dict[str, str]]:
    """Return the environment of each pod of a JobSet, fields and $(NAME) filled in as Kubernetes does."""
    replicated = job["spec"]["replicatedJobs"][0]
    found = []
    for number in range(replicated["replicas"]):
        for host in range(replicated["template"]["spec"]["completions"]):
            fields = {
                "metadata.annotations['batch.kubernetes.io/job-completion-index']": str(host),
                "metadata.labels['jobset.sigs.k8s.io/job-index']": str(number),
            }
            env: dict[str, str] = {}
            for one in pod_of(job)["containers"][0]["env"]:
                value = one["value"] if "value" in one else fields[one["valueFrom"]["fieldRef"]["fieldPath"]]
                for name, earlier in env.items():
                    value = value.replace(f"$({name})", earlier)
                env[one["name"]] = value
            found.append(env)
    return found


def test_a_train_job_has_a_pod_for_each_host_and_the_runtime_of_its_namespace() -> None:
    job = train_job(workload(hosts=4, cpu="8", memory="64Gi", accelerator="v5e", topology="4x4", count=4, spot=True))
    trainer = job["spec"]["trainer"]
    assert (trainer["numNodes"], trainer["image"]) == (4, "podium/trainer:1")
    assert trainer["command"] == ["podium", "ppo"]
    assert trainer["resourcesPerNode"] == {"limits": {"cpu": "8", "memory": "64Gi", "google.com/tpu": "4"}}
    assert job["metadata"]["ownerReferences"][0]["name"] == "launcher"
    (runtime,) = (one for one in manifests("team", "runner") if one["kind"] == "TrainingRuntime")
    assert runtime["metadata"]["namespace"] == "team"
    assert job["spec"]["runtimeRef"]["name"] == runtime["metadata"]["name"]


@pytest.mark.parametrize("render", [train_job, job_set])
def test_pods_go_where_their_accelerator_is(render: Any) -> None:
    pod = pod_of(render(workload(hosts=4, accelerator="v5e", topology="4x4", count=4, spot=True)))
    assert pod["nodeSelector"] == {
        "cloud.google.com/gke-tpu-accelerator": "tpu-v5-lite-podslice",
        "cloud.google.com/gke-tpu-topology": "4x4",
        "cloud.google.com/gke-spot": "true",
    }
    assert [one["key"] for one in pod["tolerations"]] == ["cloud.google.com/gke-spot", "google.com/tpu"]


@pytest.mark.parametrize("render", [train_job, job_set])
def test_without_resources_a_pod_asks_for_nothing(render: Any) -> None:
    pod = pod_of(render(workload(hosts=2)))
    assert not {"nodeSelector", "tolerations"} & set(pod)
    assert "resources" not in (pod.get("containers") or [{}])[0]


@pytest.mark.parametrize(
    ("resources", "count"),
    [
        ({"hosts": 3}, 3),
        ({"hosts": 8, "accelerator": "v5e", "topology": "4x4", "count": 4}, 8),
        ({"hosts": 2, "accelerator": "nvidia-l4", "count": 8}, 2),
    ],
)
def test_each_pod_of_a_job_set_reads_its_own_place(resources: dict[str, Any], count: int) -> None:
    job = job_set(workload(**resources))
    places = [read_launch(None, None, None, env) for env in environments(job)]
    assert [place and place.index for place in places] == list(range(count))
    assert {place and place.processes for place in places} == {count}
    (address,) = {place.coordinator.split(":")[0] for place in places if place}
    assert address == "rlhf-1-ppo-slice-0-0.rlhf-1-ppo"


def test_neighbours_of_a_slice_are_its_own() -> None:
    job = job_set(workload(hosts=4, accelerator="v5e", topology="2x4", count=4))
    names = [env["TPU_WORKER_HOSTNAMES"].split(",") for env in environments(job)]
    assert names[0] == names[1] == ["rlhf-1-ppo-slice-0-0.rlhf-1-ppo", "rlhf-1-ppo-slice-0-1.rlhf-1-ppo"]
    assert names[2] == names[3] == ["rlhf-1-ppo-slice-1-0.rlhf-1-ppo", "rlhf-1-ppo-slice-1-1.rlhf-1-ppo"]


@pytest.mark.parametrize(
    ("resources", "said"),
    [
        ({"hosts": 3, "accelerator": "v5e", "topology": "4x4", "count": 4}, "hosts: 4"),
        ({"hosts": 6, "accelerator": "v5e", "topology": "4x4", "count": 4}, "hosts: 4"),
        ({"hosts": 5, "accelerator": "v5e", "topology": "4x4", "count": 3}, "16 chips"),
        ({"hosts": 2, "accelerator": "v5p"}, "topology is missing"),
        ({"hosts": 2, "accelerator": "v99"}, "'v99' is unknown"),
    ],
)
def test_hosts_that_are_no_whole_slices_are_refused(resources: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=r"platform\.resources\.ppo") as refused:
        job_set(workload(**resources))
    assert said in str(refused.value)


@pytest.mark.parametrize("kind", ["runtime", "jobset"])
def test_a_gang_restarts_but_not_after_what_would_only_come_again(kind: str) -> None:
    whole = manifests("team", "runner")[0]["spec"]["template"] if kind == "runtime" else job_set(workload(hosts=2))
    spec = whole["spec"]
    job = spec["replicatedJobs"][0]["template"]["spec"]
    (rule,) = job["podFailurePolicy"]["rules"]
    assert job["backoffLimit"] == 0
    assert (rule["action"], rule["onExitCodes"]["values"]) == ("FailJob", [1, 2, 3])
    assert spec["failurePolicy"]["maxRestarts"] > 0
    assert spec["failurePolicy"]["rules"][0]["onJobFailureReasons"] == ["PodFailurePolicy"]
    pod = job["template"]["spec"]
    assert pod["restartPolicy"] == "Never"
    assert rule["onExitCodes"]["containerName"] == pod["containers"][0]["name"]


@pytest.mark.parametrize("render", [train_job, job_set])
def test_queue_secrets_and_shared_memory_reach_the_pods(render: Any) -> None:
    given = replace(workload(hosts=2, shared_memory="8Gi"), queue="team", pull_secrets=["registry"])
    job = render(given)
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "team"
    pod = pod_of(job)
    assert pod["imagePullSecrets"] == [{"name": "registry"}]
    memory = next(one for one in pod["volumes"] if one["name"] == "shared-memory")
    assert memory["emptyDir"] == {"medium": "Memory", "sizeLimit": "8Gi"}
