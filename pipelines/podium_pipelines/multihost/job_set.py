"""A JobSet with one replicated job a slice: for clusters without Kubeflow Trainer, and for TPUs of several slices."""

from typing import Any

from podium_pipelines.multihost.names import JOBSET
from podium_pipelines.multihost.train_job import RESTARTS
from podium_pipelines.multihost.workload import (
    PORT,
    Workload,
    job,
    limits,
    metadata,
    pod,
    pod_placement,
    restart_policy,
    volumes,
)

API = "/".join(JOBSET)
_SLICE = "slice"
# Where libtpu's coordination between slices listens on the first host (MEGASCALE).
_MEGASCALE_PORT = 8080


def job_set(workload: Workload) -> dict[str, Any]:
    """Return the JobSet of a workload.

    Raises:
        UserError: Its resources are none that a pod can have, or its hosts are no whole number of slices.
    """
    slices = workload.slices
    hosts = workload.resources.hosts // slices
    body = pod() | pod_placement(workload) | {"volumes": volumes(workload)}
    container = body["containers"][0] | {
        "image": workload.image,
        "command": list(workload.command),
        "env": [*_places(workload, slices, hosts), *(dict(one) for one in workload.env)],
    }
    if taken := limits(workload):
        container["resources"] = {"limits": taken}
    template = {
        "spec": {
            **job(),
            "parallelism": hosts,
            "completions": hosts,
            "completionMode": "Indexed",
            "template": {"metadata": {"labels": dict(workload.labels)}, "spec": body | {"containers": [container]}},
        }
    }
    return {
        "apiVersion": API,
        "kind": "JobSet",
        "metadata": metadata(workload),
        "spec": {
            "network": {"enableDNSHostnames": True, "publishNotReadyAddresses": True},
            "failurePolicy": restart_policy(RESTARTS),
            "replicatedJobs": [{"name": _SLICE, "replicas": slices, "template": template}],
        },
    }


def _places(workload: Workload, slices: int, hosts: int) -> list[dict[str, Any]]:
    """Return the variables that tell a pod its place.

    They are computed from the job's own shape, also those of several slices: what a node's webhook sets may be of an
    earlier shape after a preemption, and a start with wrong ones waits for ever.
    """
    host = _field("JOB_COMPLETION_INDEX", "metadata.annotations['batch.kubernetes.io/job-completion-index']")
    first = f"{workload.name}-{_SLICE}-0-0.{workload.name}"
    if slices == 1:
        return [
            host,
            {"name": "JAX_COORDINATOR_ADDRESS", "value": f"{first}:{PORT}"},
            {"name": "JAX_NUM_PROCESSES", "value": str(hosts)},
            {"name": "JAX_PROCESS_ID", "value": "$(JOB_COMPLETION_INDEX)"},
        ]
    neighbours = [f"{workload.name}-{_SLICE}-$(MEGASCALE_SLICE_ID)-{index}.{workload.name}" for index in range(hosts)]
    return [
        host,
        _field("MEGASCALE_SLICE_ID", "metadata.labels['jobset.sigs.k8s.io/job-index']"),
        {"name": "MEGASCALE_NUM_SLICES", "value": str(slices)},
        {"name": "MEGASCALE_COORDINATOR_ADDRESS", "value": f"{first}:{_MEGASCALE_PORT}"},
        {"name": "TPU_WORKER_ID", "value": "$(JOB_COMPLETION_INDEX)"},
        {"name": "TPU_WORKER_HOSTNAMES", "value": ",".join(neighbours)},
    ]


def _field(name: str, path: str) -> dict[str, Any]:
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}
