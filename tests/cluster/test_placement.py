"""A node that says it has an accelerator gets the pods that ask for it, from the real scheduler; others do not."""

import json
from collections.abc import Iterator

import pytest

from podium.config import Resources
from podium.config.accelerators import ACCELERATORS, GPU_RESOURCE, TPU_RESOURCE
from podium_pipelines.multihost.job_set import job_set
from podium_pipelines.multihost.train_job import train_job
from podium_pipelines.multihost.workload import Workload
from podium_pipelines.placement import placement
from support.cluster import IMAGE, Cluster, Job


def asked(accelerator: str) -> Resources:
    """Return what a stage on one host asks for."""
    shape = {0: None, 2: "2x2", 3: "2x2x1"}[ACCELERATORS[accelerator].chip.sides]
    return Resources(accelerator=accelerator, topology=shape, count=4, spot=True)


@pytest.fixture(params=sorted(ACCELERATORS))
def accelerator(request: pytest.FixtureRequest, cluster: Cluster) -> Iterator[str]:
    """Let the first node say that it has an accelerator, and is reserved for those who want it."""
    node = cluster.get("nodes")["items"][0]["metadata"]["name"]
    place = placement(asked(request.param), "here", "gke")
    (resource,) = place.limits
    capacity = f"/status/capacity/{resource.replace('/', '~1')}"
    labels, taint = [f"{key}={value}" for key, value in place.selectors.items()], f"{resource}=present:NoSchedule"
    patch = ["patch", "node", node, "--subresource=status", "--type=json", "-p"]
    cluster.kubectl("label", "node", node, *labels)
    cluster.kubectl("taint", "node", node, taint, "cloud.google.com/gke-spot=true:NoSchedule")
    cluster.kubectl(*patch, json.dumps([{"op": "add", "path": capacity, "value": "4"}]))
    yield request.param
    cluster.kubectl(*patch, json.dumps([{"op": "remove", "path": capacity}]))
    cluster.kubectl("taint", "node", node, f"{taint}-", "cloud.google.com/gke-spot=true:NoSchedule-")
    cluster.kubectl("label", "node", node, *(f"{label.split('=')[0]}-" for label in labels))


@pytest.mark.parametrize("kind", ["trainjob", "jobset"])
def test_a_pod_lands_where_its_accelerator_is(cluster: Cluster, accelerator: str, kind: str) -> None:
    job = begin(cluster, f"{kind}-{accelerator}", kind, asked(accelerator))
    try:
        (pod,) = cluster.wait("a node", lambda: [one for one in job.pods() if "nodeName" in one["spec"]], seconds=60)
        taken = pod["spec"]["containers"][0]["resources"]["limits"]
        assert {taken.get(GPU_RESOURCE), taken.get(TPU_RESOURCE)} == {"4", None}
    finally:
        cluster.kubectl("delete", kind, job.name)


def test_without_the_accelerator_it_waits_and_the_scheduler_says_why(cluster: Cluster) -> None:
    job = begin(cluster, "nowhere", "jobset", asked("v5e"))
    try:

        def why() -> list[str]:
            conditions = [one for pod in job.pods() for one in pod["status"].get("conditions", ())]
            return [one["message"] for one in conditions if one.get("reason") == "Unschedulable"]

        (message,) = cluster.wait("the scheduler's words", why, seconds=60)
        assert "didn't match Pod's node affinity/selector" in message
    finally:
        cluster.kubectl("delete", "jobset", job.name)


def begin(cluster: Cluster, name: str, kind: str, resources: Resources) -> Job:
    """Start a job whose pod does nothing."""
    workload = Workload(name=name, image=IMAGE, command=["true"], resources=resources, where="here")
    cluster.apply({"trainjob": train_job, "jobset": job_set}[kind](workload))
    return Job(cluster, kind, name)
