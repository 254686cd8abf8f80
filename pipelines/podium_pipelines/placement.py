"""Where on Kubernetes a pod of `platform.resources` may run: node labels, tolerations and what it takes there."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from podium.config import Resources
from podium.config.accelerators import ACCELERATORS, Accelerator, accelerator_name
from podium.errors import UserError

_SPOT = "cloud.google.com/gke-spot"


@dataclass(frozen=True)
class Placement:
    """Node labels to select, taints to tolerate, and how many of which accelerator a pod takes."""

    selectors: Mapping[str, str]
    tolerations: Sequence[Mapping[str, str]]
    limits: Mapping[str, str]


def placement(wanted: Resources, where: str) -> Placement:
    """Return the placement of one pod.

    Raises:
        UserError: The accelerator is unknown, or a TPU is without topology. `where` names the place in the config.
    """
    selectors: dict[str, str] = {}
    tolerations: list[Mapping[str, str]] = []
    limits: dict[str, str] = {}
    if wanted.spot:
        selectors[_SPOT] = "true"
        tolerations.append({"key": _SPOT, "operator": "Equal", "value": "true", "effect": "NoSchedule"})
    accelerator = accelerator_of(wanted, where)
    if accelerator is not None:
        selectors |= _selectors(accelerator, wanted, where)
        # Accelerator nodes are tainted with the name of their resource: only what asks for it lands there.
        tolerations.append({"key": accelerator.resource, "operator": "Exists", "effect": "NoSchedule"})
        limits[accelerator.resource] = str(wanted.count or 1)
    return Placement(selectors, tolerations, limits)


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


def _selectors(accelerator: Accelerator, wanted: Resources, where: str) -> dict[str, str]:
    if not accelerator.is_tpu:
        return {"cloud.google.com/gke-accelerator": accelerator.gke}
    if not wanted.topology:
        raise UserError(f"{where}.topology is missing: a TPU needs one, such as topology: 2x2")
    return {
        "cloud.google.com/gke-tpu-accelerator": accelerator.gke,
        "cloud.google.com/gke-tpu-topology": wanted.topology,
    }
