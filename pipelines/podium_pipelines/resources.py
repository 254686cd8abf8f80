"""Turn `platform.resources` into the settings of a pipeline task."""

from typing import Any

from kfp import dsl, kubernetes

from podium.config import Resources
from podium.config.accelerators import ACCELERATORS
from podium.errors import UserError
from podium_pipelines.placement import Nodes, accelerator_of, placement


def apply_resources(task: dsl.PipelineTask, stage: str, wanted: Resources, target: str, nodes: Nodes = "gke") -> None:
    """Set processors, memory and accelerators of one stage's task for Kubeflow or Vertex.

    Raises:
        UserError: The target cannot give what `platform.resources` asks for.
    """
    where = f"platform.resources.{stage}"
    if wanted.hosts > 1:
        raise UserError(
            f"{where}.hosts is {wanted.hosts}: on Vertex a task on several hosts is not supported yet; "
            "write hosts: 1 and an accelerator count that one host has"
        )
    if wanted.cpu is not None:
        _set(task.set_cpu_limit, wanted.cpu, f"{where}.cpu", "a number of processors such as 8 or 500m")
    if wanted.memory is not None:
        _set(task.set_memory_limit, wanted.memory, f"{where}.memory", "a size such as 32Gi or 64G")
    if target == "vertex":
        _apply_vertex(task, wanted, where)
    else:
        _apply_kubernetes(task, wanted, where, nodes)


def _apply_vertex(task: dsl.PipelineTask, wanted: Resources, where: str) -> None:
    accelerator = accelerator_of(wanted, where)
    for name in ("node_selector", "tolerations", "shared_memory"):
        if getattr(wanted, name):
            raise UserError(f"{where}.{name}: Vertex AI has no nodes of yours; leave it out")
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


def _apply_kubernetes(task: dsl.PipelineTask, wanted: Resources, where: str, nodes: Nodes) -> None:
    place = placement(wanted, where, nodes)
    if wanted.shared_memory:
        kubernetes.empty_dir_mount(
            task,
            volume_name="shared-memory",
            mount_path="/dev/shm",
            medium="Memory",
            size_limit=wanted.shared_memory,
        )
    for label, value in place.selectors.items():
        kubernetes.add_node_selector(task, label, value)
    for toleration in place.tolerations:
        kubernetes.add_toleration(task, **toleration)
    for resource, count in place.limits.items():
        task.set_accelerator_type(resource)
        task.set_accelerator_limit(int(count))


def _set(setter: Any, value: str, where: str, instead: str) -> None:
    """Call one of KFP's checked setters and word its refusal for a reader of the config."""
    try:
        setter(value)
    except ValueError as error:
        raise UserError(f"{where}: {value!r} is not accepted; write {instead}") from error
