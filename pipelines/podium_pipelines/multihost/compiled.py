"""Turn a task of the compiled pipeline into one that starts its phase on several hosts."""

from typing import Any

from kfp import dsl

from podium.config import PodiumConfig, Resources
from podium.errors import UserError
from podium_components._command import PROGRAM
from podium_components._image import default_image
from podium_pipelines.environment import pod_environment
from podium_pipelines.multihost.task import VARIABLE, HostsConfig
from podium_pipelines.multihost.workload import Workload, limits

_KINDS: Any = {"trainjob": "TrainJob", "jobset": "JobSet"}
# Starting a job and reading a log takes little, but Kubernetes may give a pod without requests nothing at all.
_CPU, _MEMORY = "500m", "512Mi"
_LAUNCHER = "podium/launcher"


def launch(task: dsl.PipelineTask, stage: str, config: PodiumConfig, wanted: Resources) -> None:
    """Let a task run `podium launch` in place of its stage, whose pods get what `wanted` says.

    Raises:
        UserError: Its resources are none that hosts of a cluster have, or there is no storage that all of them reach.
    """
    where = f"platform.resources.{stage}"
    if not config.platform.kubeflow.storage:
        raise UserError(
            f"{where}.hosts is {wanted.hosts}: hosts hand each other files through a store; write its URI, s3:// or "
            "gs://, in platform.kubeflow.storage"
        )
    cluster = config.platform.kubeflow
    kind = _KINDS[cluster.launcher]
    image = config.platform.image or default_image()
    job = Workload(name=stage, image=image, command=(), resources=wanted, where=where, nodes=cluster.nodes)
    limits(job)  # refuses what no host has
    slices = job.slices
    if slices > 1 and kind != "JobSet":
        raise UserError(
            f"{where}: {wanted.hosts} hosts make up {slices} slices of {wanted.topology}, which a TrainJob does not "
            "join; write platform.kubeflow.launcher: jobset"
        )
    hosts = HostsConfig(
        kind=kind,
        image=image,
        resources=wanted,
        env=pod_environment(config),
        nodes=cluster.nodes,
        pull_secrets=cluster.image_pull_secrets,
        queue=cluster.queue or "",
    )
    task.set_env_variable(VARIABLE, hosts.model_dump_json(exclude_defaults=True))
    task.set_container_image(cluster.launcher_image or default_image(_LAUNCHER))
    assert task.container_spec is not None, "every component of ours is a container"
    task.container_spec.command = [*PROGRAM, "launch", stage]
    task.set_cpu_limit(_CPU)
    task.set_memory_limit(_MEMORY)
