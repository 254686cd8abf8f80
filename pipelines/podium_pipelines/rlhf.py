"""The RLHF pipeline: prepare -> reward -> sample -> ppo -> evaluate -> export, from one source for every target."""

import itertools
from typing import Literal

from kfp import dsl
from kfp.dsl.base_component import BaseComponent

import podium_components as components
from podium.config import STAGES, PodiumConfig
from podium_pipelines.parameters import data_digest_of, stage_parameter
from podium_pipelines.resources import apply_resources

Target = Literal["local", "kubeflow", "vertex"]

NAME = "rlhf"


def rlhf_pipeline(config: PodiumConfig, target: Target) -> BaseComponent:
    """Build the pipeline of one config for one target.

    Its parameters are one dict per stage, with the resolved config as default: a run's page shows every knob and a
    new run can change it.
    """
    defaults = {stage: stage_parameter(config, stage) for stage in STAGES}
    # A local run has no cache of KFP's: `prepare` looks at the files itself.
    digest = "" if target == "local" else data_digest_of(config)

    @dsl.pipeline(
        name=NAME,
        description="Preference data, reward model, PPO, evaluation and export.",
        pipeline_root=_pipeline_root(config, target),
    )
    def pipeline(
        prepare: dict = defaults["prepare"],
        reward: dict = defaults["reward"],
        sample: dict = defaults["sample"],
        ppo: dict = defaults["ppo"],
        evaluate: dict = defaults["evaluate"],
        export: dict = defaults["export"],
        data_digest: str = digest,
    ) -> None:
        prepared = components.prepare(config=prepare, data_digest=data_digest)
        rewarded = components.reward(config=reward, preferences=prepared.outputs["preferences"])
        sampled = components.sample(config=sample, prompts=prepared.outputs["prompts"])
        tuned = components.ppo(
            config=ppo,
            prompts=prepared.outputs["prompts"],
            reward_model=rewarded.outputs["reward_model"],
        )
        evaluated = components.evaluate(
            config=evaluate,
            policy=tuned.outputs["policy"],
            candidates=sampled.outputs["candidates"],
            reward_model=rewarded.outputs["reward_model"],
        )
        exported = components.export(config=export, policy=tuned.outputs["policy"])
        _finish(config, target, (prepared, rewarded, sampled, tuned, evaluated, exported))

    return pipeline


def _finish(config: PodiumConfig, target: Target, tasks: tuple[dsl.PipelineTask, ...]) -> None:
    resources = {str(stage): wanted for stage, wanted in config.platform.resources.items()}
    for stage, task in zip(STAGES, tasks, strict=True):
        if config.platform.image is not None:
            task.set_container_image(config.platform.image)
        wanted = resources.get(stage)
        if wanted is not None and target != "local":
            apply_resources(task, stage, wanted, target)
    if target == "local":
        # One machine runs one task at a time; a fixed order makes "[3/6] sample" mean the same in every run.
        for earlier, later in itertools.pairwise(tasks):
            later.after(earlier)


def _pipeline_root(config: PodiumConfig, target: Target) -> str | None:
    roots = {"kubeflow": config.platform.kubeflow.storage, "vertex": config.platform.vertex.staging_bucket}
    return roots.get(target)
