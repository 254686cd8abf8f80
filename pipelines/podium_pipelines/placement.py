"""Where on Kubernetes a pod of `platform.resources` may run: node labels, tolerations and what it takes there."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from podium.config import Resources
from podium.config.accelerators import ACCELERATORS, Accelerator, accelerator_name
from podium.errors import UserError

Nodes = Literal["gke", "eks", "any"]
# What each provider labels and taints machines with that it may take back: a label's key and value.
_SPOT: Mapping[Nodes, tuple[str, str]] = {
    "gke": ("cloud.google.com/gke-spot", "true"),
    "eks": ("eks.amazonaws.com/capacityType", "SPOT"),
}
_EFA = "vpc.amazonaws.com/efa"


@dataclass(frozen=True)
class Placement:
    """Node labels to select, taints to tolerate, and how many of which resource a pod takes."""

    selectors: Mapping[str, str]
    tolerations: Sequence[Mapping[str, str]]
    limits: Mapping[str, str]


def placement(wanted: Resources, where: str, nodes: Nodes) -> Placement:
    """Return the placement of one pod on nodes that are labelled as `nodes` does.

    Raises:
        UserError: The accelerator is unknown, a TPU is without topology, or the provider has no such machines.
            `where` names the place in the config.
    """
    selectors: dict[str, str] = {}
    tolerations: list[Mapping[str, str]] = []
    limits: dict[str, str] = {}
    if wanted.spot:
        key, value = _spot(where, nodes)
        selectors[key] = value
        tolerations.append({"key": key, "operator": "Equal", "value": value, "effect": "NoSchedule"})
    accelerator = accelerator_of(wanted, where)
    if accelerator is not None:
        selectors |= _selectors(accelerator, wanted, where, nodes)
        # Accelerator nodes are tainted with the name of their resource: only what asks for it lands there.
        tolerations.append({"key": accelerator.resource, "operator": "Exists", "effect": "NoSchedule"})
        limits[accelerator.resource] = str(wanted.count or 1)
        if nodes == "eks" and accelerator.aws and wanted.hosts > 1:
            # Whole hosts that speak to each other take all of their interfaces.
            limits[_EFA] = str(accelerator.aws.interfaces)
    tolerations += [one.model_dump(exclude_none=True) for one in wanted.tolerations]
    return Placement(selectors | wanted.node_selector, tolerations, limits)


def accelerator_of(wanted: Resources, where: str) -> Accelerator | None:
    """Return what the table says of the accelerator, None where no one is asked for.

    Raises:
        UserError: The table does not know it.
    """
    if wanted.accelerator is None:
        return None
    found = ACCELERATORS.get(accelerator_name(wanted.accelerator))
    if found is None:
        raise UserError(
            f"{where}.accelerator: {wanted.accelerator!r} is unknown; write one of {', '.join(ACCELERATORS)}"
        )
    return found


def _spot(where: str, nodes: Nodes) -> tuple[str, str]:
    if nodes not in _SPOT:
        raise UserError(
            f"{where}.spot: platform.kubeflow.nodes is {nodes}, which has no label for it; name the nodes in "
            f"{where}.node_selector and tolerations"
        )
    return _SPOT[nodes]


def _selectors(accelerator: Accelerator, wanted: Resources, where: str, nodes: Nodes) -> dict[str, str]:
    if accelerator.is_tpu:
        if nodes == "eks":
            raise UserError(f"{where}.accelerator: EKS has no TPUs; write a GPU, or platform.kubeflow.nodes: gke")
        if not wanted.topology:
            raise UserError(f"{where}.topology is missing: a TPU needs one, such as topology: 2x2")
        return {
            "cloud.google.com/gke-tpu-accelerator": accelerator.gke,
            "cloud.google.com/gke-tpu-topology": wanted.topology,
        }
    if nodes == "gke":
        return {"cloud.google.com/gke-accelerator": accelerator.gke}
    if nodes == "any":
        return {}
    if accelerator.aws is None and not wanted.node_selector:
        raise UserError(
            f"{where}.accelerator: several types of EC2 instances have {wanted.accelerator}; name one in "
            f"{where}.node_selector, such as {{node.kubernetes.io/instance-type: g6.12xlarge}}"
        )
    return {"node.kubernetes.io/instance-type": accelerator.aws.name} if accelerator.aws else {}
