"""Kubeflow Trainer's TrainJob, and the namespaced TrainingRuntime that it refers to."""

from typing import Any

from podium_pipelines.multihost.names import RUNTIME, TRAINER
from podium_pipelines.multihost.workload import (
    Workload,
    job,
    limits,
    metadata,
    pod,
    pod_placement,
    restart_policy,
    volumes,
)

API = "/".join(TRAINER)
# Of the whole gang, counted over a TrainJob's life. It goes on from its last checkpoint each time.
RESTARTS = 20
# Trainer keeps patches apart by who wrote them.
_MANAGER = "podium.dev/launcher"
# Trainer's name for the job of the training pods.
_NODE = "node"


def training_runtime() -> dict[str, Any]:
    """Return the runtime of all TrainJobs of Podium in a namespace: how a gang starts, restarts and ends.

    Trainer gives its pods JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID.
    """
    template = {
        "metadata": {"labels": {"trainer.kubeflow.org/trainjob-ancestor-step": "trainer"}},
        "spec": {**job(), "template": {"spec": pod()}},
    }
    return {
        "apiVersion": API,
        "kind": "TrainingRuntime",
        "metadata": {"name": RUNTIME, "labels": {"trainer.kubeflow.org/framework": "jax"}},
        "spec": {
            "mlPolicy": {"numNodes": 1, "jax": {}},
            "template": {
                "spec": {
                    "failurePolicy": restart_policy(RESTARTS),
                    "replicatedJobs": [{"name": _NODE, "template": template}],
                }
            },
        },
    }


def train_job(workload: Workload) -> dict[str, Any]:
    """Return the TrainJob of a workload.

    Raises:
        UserError: Its resources are none that a pod can have.
    """
    place: dict[str, Any] = {"metadata": {"labels": dict(workload.labels)}, "spec": pod_placement(workload)}
    if workload.resources.shared_memory:
        place["spec"] |= {"volumes": volumes(workload)}
    trainer: dict[str, Any] = {
        "image": workload.image,
        "command": list(workload.command),
        "numNodes": workload.resources.hosts,
        "env": [dict(one) for one in workload.env],
    }
    if taken := limits(workload):
        trainer["resourcesPerNode"] = {"limits": taken}
    return {
        "apiVersion": API,
        "kind": "TrainJob",
        "metadata": metadata(workload),
        "spec": {
            "runtimeRef": {"apiGroup": TRAINER[0], "kind": "TrainingRuntime", "name": RUNTIME},
            "trainer": trainer,
            "runtimePatches": [
                {
                    "manager": _MANAGER,
                    "trainingRuntimeSpec": {
                        "template": {
                            "spec": {"replicatedJobs": [{"name": _NODE, "template": {"spec": {"template": place}}}]}
                        }
                    },
                }
            ],
        },
    }
