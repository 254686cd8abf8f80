"""Turn `platform.resources` into the settings of a pipeline task."""

from typing import Any

from kfp import dsl, kubernetes

from podium.config import Resources
from podium.config.accelerators import ACCELERATORS, TPU_RESOURCE, Accelerator, accelerator_name
from podium.errors import UserError


def apply_resources(task: dsl.PipelineTask, stage: str, wanted: Resources, target: str) -> None:
    """Set processors, memory and accelerators of one stage's task for Kubeflow or Vertex.

    Raises:
        UserError: The target cannot give what `platform.resources` asks for.
    """
    where = f"platform.resources.{stage}"
    if wanted.hosts > 1:
        raise UserError(
            f"{where}.hosts is {wanted.hosts}: a task on several hosts is not supported yet; "
            "write hosts: 1 and an accelerator count that one host has"
        )
    if wanted.cpu is not None:
        _set(task.set_cpu_limit, wanted.cpu, f"{where}.cpu", "a number of processors such as 8 or 500m")
    if wanted.memory is not None:
        _set(task.set_memory_limit, wanted.memory, f"{where}.memory", "a size such as 32Gi or 64G")
    accelerator = _accelerator(wanted.accelerator, where)
    if target == "vertex":
        _apply_vertex(task, wanted, accelerator, where)
    else:
        _apply_kubernetes(task, wanted, accelerator, where)


def _accelerator(name: str | None, where: str) -> Accelerator | None:
    if name is None:
        return None
    result = ACCELERATORS.get(accelerator_name(name))
    if result is None:
        raise UserError(f"{where}.accelerator: {name!r} is unknown; write one of {', '.join(ACCELERATORS)}")
    return result


def _apply_vertex(task: dsl.PipelineTask, wanted: Resources, accelerator: Accelerator | None, where: str) -> None:
    if wanted.spot:
        raise UserError(f"{where}.spot: a Vertex pipeline task cannot run on spot machines; leave it out")
    if accelerator is None:
        return
    if accelerator.vertex is None:
        raise UserError(
            f"{where}.accelerator: a Vertex pipeline task cannot have TPU {wanted.accelerator}; write one of "
            + ", ".join(name for name, item in ACCELERATORS.items() if item.vertex)
        )
    task.set_accelerator_type(accelerator.vertex)
    task.set_accelerator_limit(wanted.count or 1)


def _apply_kubernetes(task: dsl.PipelineTask, wanted: Resources, accelerator: Accelerator | None, where: str) -> None:
    if wanted.spot:
        _select_spot(task)
    if accelerator is None:
        return
    task.set_accelerator_type(accelerator.resource)
    task.set_accelerator_limit(wanted.count or 1)
    if accelerator.resource == TPU_RESOURCE:
        if not wanted.topology:
            raise UserError(f"{where}.topology is missing: a TPU needs one, such as topology: 2x2")
        kubernetes.add_node_selector(task, "cloud.google.com/gke-tpu-accelerator", accelerator.gke)
        kubernetes.add_node_selector(task, "cloud.google.com/gke-tpu-topology", wanted.topology)
    else:
        kubernetes.add_node_selector(task, "cloud.google.com/gke-accelerator", accelerator.gke)
    # Accelerator nodes are tainted with the name of their resource, so that only tasks that ask for it land there.
    kubernetes.add_toleration(task, key=accelerator.resource, operator="Exists", effect="NoSchedule")


def _select_spot(task: dsl.PipelineTask) -> None:
    kubernetes.add_node_selector(task, "cloud.google.com/gke-spot", "true")
    kubernetes.add_toleration(
        task, key="cloud.google.com/gke-spot", operator="Equal", value="true", effect="NoSchedule"
    )


def _set(setter: Any, value: str, where: str, instead: str) -> None:
    """Call one of KFP's checked setters and word its refusal for a reader of the config."""
    try:
        setter(value)
    except ValueError as error:
        raise UserError(f"{where}: {value!r} is not accepted; write {instead}") from error
