"""The RLHF pipeline, from one source for every target; it has an sft task where the config has that section."""

import inspect
import itertools
from typing import Any, Literal

from kfp import dsl
from kfp.dsl.base_component import BaseComponent

import podium_components as components
from podium.config import PodiumConfig, stages_of
from podium.errors import UserError
from podium_pipelines.parameters import data_digest_of, stage_parameter
from podium_pipelines.resources import apply_resources

Target = Literal["local", "kubeflow", "vertex"]

NAME = "rlhf"


def rlhf_pipeline(config: PodiumConfig, target: Target) -> BaseComponent:
    """Build the pipeline of one config for one target.

    Its parameters are one dict per stage, with the resolved config as default: a run's page shows every knob and a
    new run can change it.

    Raises:
        UserError: The config describes no run of the whole pipeline, or asks for what the target cannot give.
    """
    if config.data.demonstrations and not config.data.preferences:
        raise UserError(
            "data.preferences: no file named; a run trains a reward model on them (podium sft works without)"
        )
    # A local run has no cache of KFP's: `prepare` looks at the files itself.
    digest = "" if target == "local" else data_digest_of(config)
    parameters: dict[str, dict[str, Any] | str] = {stage: stage_parameter(config, stage) for stage in stages_of(config)}
    parameters["data_digest"] = digest

    def pipeline(*channels: Any) -> None:
        _finish(config, target, _tasks(**dict(zip(parameters, channels, strict=True))))

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
        pipeline_root=_pipeline_root(config, target),
    )(pipeline)


def _tasks(
    *, prepare: Any, reward: Any, sample: Any, ppo: Any, evaluate: Any, export: Any, data_digest: Any, sft: Any = None
) -> dict[str, dsl.PipelineTask]:
    """Make the tasks from the channels of their parameters, by stage, in the order in which a laptop runs them."""
    prepared = components.prepare(config=prepare, data_digest=data_digest)
    tasks = {"prepare": prepared}
    # KFP takes no None for an optional artifact: it is left out.
    model, base = {}, {}
    if sft is not None:
        tasks["sft"] = components.sft(config=sft, demonstrations=prepared.outputs["demonstrations"])
        model, base = ({name: tasks["sft"].outputs["model"]} for name in ("model", "base"))
    prompts = prepared.outputs["prompts"]
    tasks["reward"] = components.reward(config=reward, preferences=prepared.outputs["preferences"], **model)
    tasks["sample"] = components.sample(config=sample, prompts=prompts, **model)
    reward_model = tasks["reward"].outputs["reward_model"]
    tasks["ppo"] = components.ppo(config=ppo, prompts=prompts, reward_model=reward_model, **model)
    policy = tasks["ppo"].outputs["policy"]
    tasks["evaluate"] = components.evaluate(
        config=evaluate,
        policy=policy,
        candidates=tasks["sample"].outputs["candidates"],
        reward_model=reward_model,
        data_report=prepared.outputs["data_report"],
        **model,
    )
    samples = tasks["evaluate"].outputs["samples"]
    tasks["export"] = components.export(config=export, policy=policy, samples=samples, **base)
    return tasks


def _finish(config: PodiumConfig, target: Target, tasks: dict[str, dsl.PipelineTask]) -> None:
    resources = {str(stage): wanted for stage, wanted in config.platform.resources.items()}
    for stage, task in tasks.items():
        if config.platform.image is not None:
            task.set_container_image(config.platform.image)
        wanted = resources.get(stage)
        if wanted is not None and target != "local":
            apply_resources(task, stage, wanted, target)
    if target == "local":
        # One machine runs one task at a time; a fixed order makes "[3/6] sample" mean the same in every run.
        for earlier, later in itertools.pairwise(tasks.values()):
            later.after(earlier)


def _pipeline_root(config: PodiumConfig, target: Target) -> str | None:
    roots = {"kubeflow": config.platform.kubeflow.storage, "vertex": config.platform.vertex.staging_bucket}
    return roots.get(target)
