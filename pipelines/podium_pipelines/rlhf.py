"""The RLHF pipeline, from one source for every target; it has an sft task where the config has that section."""

import inspect
import itertools
from collections.abc import Mapping
from typing import Any, Literal

from kfp import dsl
from kfp.dsl.base_component import BaseComponent

import podium_components as components
from podium.config import STAGE_TABLE, PodiumConfig, stages_of
from podium.errors import UserError
from podium_pipelines.environment import apply_environment
from podium_pipelines.multihost.compiled import launch
from podium_pipelines.parameters import stage_parameter
from podium_pipelines.remote import NAME
from podium_pipelines.resources import apply_resources
from podium_pipelines.versions import Versions, parameters_of

Target = Literal["local", "kubeflow", "vertex"]

# The tasks that are told of their run: STORAGE, where compiled programs are kept and verdict and report are left, and
# RUN. Vertex's cache key holds a task's environment, Kubeflow's not: there only the gates, which are never cached.
_TOLD: Mapping[Target, tuple[str, ...]] = {"local": (), "kubeflow": tuple(STAGE_TABLE), "vertex": ("gates",)}


def rlhf_pipeline(config: PodiumConfig, target: Target, versions: Versions, env: Mapping[str, str]) -> BaseComponent:
    """Build the pipeline of one config for one target.

    Its parameters are one dict per stage, with the resolved config as default, and the versions of what is read beside
    artifacts: a run's page shows every knob and a new run can change it. `env` are environment variables of the
    tasks that leave something for the whole run.

    Raises:
        UserError: The config describes no run of the whole pipeline, or asks for what the target cannot give.
    """
    if config.data.demonstrations and not config.data.preferences:
        raise UserError(
            "data.preferences: no file named; a run trains a reward model on them (podium sft works without)"
        )
    stages = stages_of(config)
    read = {stage: parameters_of(config, stage) for stage in stages}
    parameters: dict[str, dict[str, Any] | str] = {stage: stage_parameter(config, stage) for stage in stages}
    parameters |= {name: versions.parameters[name] or "" for stage in stages for name in read[stage]}

    def pipeline(*channels: Any) -> None:
        given = dict(zip(parameters, channels, strict=True))
        arguments = {stage: {"config": given[stage], **{name: given[name] for name in read[stage]}} for stage in stages}
        tasks = _tasks(arguments)
        _finish(config, target, versions, tasks)
        for stage in set(_TOLD[target]) & set(tasks):
            for name, value in env.items():
                tasks[stage].set_env_variable(name, value)

    # KFP reads a pipeline's parameters off its signature; which stages there are depends on the config.
    pipeline.__signature__ = inspect.Signature(  # type: ignore[attr-defined]  # where inspect looks first
        [
            inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=value, annotation=type(value))
            for name, value in parameters.items()
        ]
    )
    return dsl.pipeline(
        name=NAME,
        description="Preference data, reward model, PPO, evaluation and export.",
        pipeline_root=storage_of(config, target),
    )(pipeline)


def _tasks(given: Mapping[str, Mapping[str, Any]]) -> dict[str, dsl.PipelineTask]:
    """Make the tasks from the channels of their parameters, by stage, in the order in which a laptop runs them."""
    tasks: dict[str, dsl.PipelineTask] = {}
    for stage, parameters in given.items():
        spec = STAGE_TABLE[stage]
        # KFP takes no None for an optional artifact: it is left out.
        artifacts = {one.name: tasks[one.stage].outputs[one.output] for one in spec.takes if one.stage in tasks}
        tasks[stage] = getattr(components, stage)(**artifacts, **parameters)
        for earlier in spec.after:
            tasks[stage].after(tasks[earlier])
    return tasks


def _finish(config: PodiumConfig, target: Target, versions: Versions, tasks: Mapping[str, dsl.PipelineTask]) -> None:
    """Set what a task has beside its inputs: image, caching, resources."""
    resources = {str(stage): wanted for stage, wanted in config.platform.resources.items()}
    for stage, task in tasks.items():
        if config.platform.image is not None:
            task.set_container_image(config.platform.image)
        # The gates leave the verdict with each run. What is not known to be the same is read again.
        if stage == "gates" or any(versions.parameters[name] is None for name in parameters_of(config, stage)):
            task.set_caching_options(False)
        apply_environment(task, config, target)
        wanted = resources.get(stage)
        if wanted is not None and target == "kubeflow" and wanted.hosts > 1:
            launch(task, stage, config, wanted)
        elif wanted is not None and target != "local":
            apply_resources(task, stage, wanted, target, config.platform.kubeflow.nodes)
    if target == "local":
        # One machine runs one task at a time; a fixed order makes "[3/6] sample" mean the same in every run.
        for earlier, later in itertools.pairwise(tasks.values()):
            later.after(earlier)


def storage_of(config: PodiumConfig, target: Target) -> str | None:
    """Return where runs on a target keep their artifacts; None where the config does not say."""
    roots = {"kubeflow": config.platform.kubeflow.storage, "vertex": config.platform.vertex.staging_bucket}
    return roots.get(target)
