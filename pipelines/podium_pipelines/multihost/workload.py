"""What several hosts of a cluster do together, and the pod that each of them runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from podium.config import Resources
from podium.errors import UserError
from podium_pipelines.placement import Nodes, accelerator_of, placement

# The container of a pod; Kubeflow Trainer looks for this name.
CONTAINER = "node"
# Where JAX's coordination service listens on the first host.
PORT = 29500
# What a pod may hold beside accelerators, which the table of accelerators names.
_QUANTITIES = ("cpu", "memory")
# The image's own user; restricted namespaces want it said.
_USER = 1000
# Exit codes that a restart does not mend: a fault of ours, a mistake of the user, missed gates (podium.errors).
FINAL_CODES = (1, 2, 3)
# Seconds that a host has to save its last step after SIGTERM.
GRACE = 120


@dataclass(frozen=True)
class Workload:
    """One phase on several hosts.

    Attributes:
        name: Of the job; its pods are called after it, so that it has to be a DNS label.
        image: Image of every pod.
        command: What every pod runs, which is the same on all of them.
        resources: What one host has, and how many hosts there are.
        where: Place of `resources` in the config, for messages.
        env: Environment of every pod, as Kubernetes writes it.
        labels: Labels of the job and its pods.
        owner: Owner reference: with what it names, the job goes.
        nodes: Whose labels the nodes have.
        pull_secrets: Secrets to pull the image with.
        queue: Kueue's local queue that admits the job; "" where none is asked.
    """

    name: str
    image: str
    command: Sequence[str]
    resources: Resources
    where: str
    env: Sequence[Mapping[str, Any]] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    owner: Mapping[str, Any] | None = None
    nodes: Nodes = "gke"
    pull_secrets: Sequence[str] = ()
    queue: str = ""

    @property
    def slices(self) -> int:
        """How many TPU slices the hosts make up; 1 for anything else.

        Raises:
            UserError: The hosts are no whole number of slices.
        """
        accelerator = accelerator_of(self.resources, self.where)
        if accelerator is None or not accelerator.is_tpu or not self.resources.topology:
            return 1
        chips = 1
        for side in self.resources.topology.split("x"):
            chips *= int(side)
        count = self.resources.count or 1
        hosts, rest = divmod(chips, count)
        slices, left = divmod(self.resources.hosts, max(hosts, 1))
        if rest or left or not slices:
            raise UserError(
                f"{self.where}: topology {self.resources.topology} has {chips} chips; write a count that divides them, "
                f"and hosts: {max(hosts, 1)} (count is {count}), or a multiple of it for several slices"
            )
        return slices


def metadata(workload: Workload) -> dict[str, Any]:
    """Return the metadata of a workload's job."""
    owner = {"ownerReferences": [dict(workload.owner)]} if workload.owner else {}
    queue = {"kueue.x-k8s.io/queue-name": workload.queue} if workload.queue else {}
    return {"name": workload.name, "labels": {**workload.labels, **queue}, **owner}


def limits(workload: Workload) -> dict[str, str]:
    """Return what one pod takes of its host."""
    wanted = workload.resources
    given = {name: getattr(wanted, name) for name in _QUANTITIES if getattr(wanted, name) is not None}
    return given | dict(placement(wanted, workload.where, workload.nodes).limits)


def pod_placement(workload: Workload) -> dict[str, Any]:
    """Return the fields of a pod that say where it may run and what pulls its image, but for those that are empty."""
    place = placement(workload.resources, workload.where, workload.nodes)
    fields = {
        "nodeSelector": dict(place.selectors),
        "tolerations": [dict(one) for one in place.tolerations],
        "imagePullSecrets": [{"name": name} for name in workload.pull_secrets],
    }
    return {name: value for name, value in fields.items() if value}


def volumes(workload: Workload | None = None) -> list[dict[str, Any]]:
    """Return the volumes of a pod, all of them gone with it."""
    memory = {"medium": "Memory"}
    if workload and workload.resources.shared_memory:
        memory["sizeLimit"] = workload.resources.shared_memory
    return [{"name": "tmp", "emptyDir": {}}, {"name": "shared-memory", "emptyDir": memory}]


def pod() -> dict[str, Any]:
    """Return a pod that namespaces of Pod Security "restricted" admit, but for its image, command and resources.

    Its disk is read-only but for /tmp; shared memory is for the exchange between the GPUs of one host (NCCL).
    """
    return {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": GRACE,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": _USER,
            "fsGroup": _USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [
            {
                "name": CONTAINER,
                "imagePullPolicy": "IfNotPresent",
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "readOnlyRootFilesystem": True,
                    "capabilities": {"drop": ["ALL"]},
                },
                "volumeMounts": [
                    {"name": "tmp", "mountPath": "/tmp"},  # of the container
                    {"name": "shared-memory", "mountPath": "/dev/shm"},
                ],
            }
        ],
        "volumes": volumes(),
    }


def job() -> dict[str, Any]:
    """Return the Job of the hosts of one slice, but for their number.

    One host that fails fails all of them at once. Only what a restart may mend is worth one: the others' policy is told
    by the reason PodFailurePolicy (`restart_policy`).
    """
    return {
        "backoffLimit": 0,
        "podFailurePolicy": {
            "rules": [
                {
                    "action": "FailJob",
                    "onExitCodes": {"containerName": CONTAINER, "operator": "In", "values": list(FINAL_CODES)},
                }
            ]
        },
    }


def restart_policy(restarts: int) -> dict[str, Any]:
    """Return JobSet's failure policy: all hosts start again, but for codes that would only come again."""
    return {
        "maxRestarts": restarts,
        "rules": [{"name": "final", "action": "FailJobSet", "onJobFailureReasons": ["PodFailurePolicy"]}],
    }
