"""The whole configuration, and the part of it that one stage reads."""

from typing import Any, Self

from pydantic import Field, model_validator

from podium.config.base import Section, Seed, fail
from podium.config.data import DataConfig
from podium.config.model import ModelConfig
from podium.config.platform import PlatformConfig
from podium.config.ppo import PpoConfig
from podium.config.stages import EvaluationConfig, ExportConfig, RewardConfig, SampleConfig

_SECTIONS = {
    "prepare": ("model", "data"),
    "reward": ("model", "data", "reward"),
    "sample": ("model", "data", "sample"),
    "ppo": ("model", "data", "ppo"),
    "evaluate": ("model", "data", "sample", "ppo", "evaluation"),
    "export": ("model", "export"),
}
_FILES = {"preferences", "prompts", "eval_preferences", "eval_prompts"}
_USES_DEVICES = {"reward", "sample", "ppo", "evaluate"}


class PodiumConfig(Section):
    """Everything a run is told; only model.name_or_path has no default."""

    seed: Seed = Field(0, description="Start of every random stream; equal seeds give equal bytes.")
    model: ModelConfig = Field(description="The pretrained model.")
    data: DataConfig = Field(DataConfig(), description="Input files and limits.")
    sample: SampleConfig = Field(SampleConfig(), description="How candidates are drawn.")
    reward: RewardConfig = Field(RewardConfig(), description="Reward model training.")
    ppo: PpoConfig = Field(PpoConfig(), description="Proximal policy optimisation.")
    evaluation: EvaluationConfig = Field(EvaluationConfig(), description="The comparison with the baseline.")
    export: ExportConfig = Field(ExportConfig(), description="The folder that leaves the pipeline.")
    platform: PlatformConfig = Field(PlatformConfig(), description="Where and on what the stages run.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        # The export stage is handed no ppo section: there the policy itself says whether it is an adapter.
        if self.export.format == "adapter" and self.ppo.lora is None and "ppo" in self.model_fields_set:
            fail("export.format", "adapter needs ppo.lora, which is null; write merged, or set ppo.lora")
        return self


def stage_config(config: PodiumConfig, stage: str) -> dict[str, Any]:
    """Return what `stage` reads, ready for JSON: a change elsewhere leaves its cache alone.

    Only `prepare` sees the names of the data files; of `platform` a stage sees the mesh alone.
    """
    dump = config.model_dump(mode="json")
    part = {"seed": dump["seed"]} | {name: dump[name] for name in _SECTIONS[stage]}
    if stage != "prepare" and "data" in part:
        part["data"] = {key: value for key, value in part["data"].items() if key not in _FILES}
    if stage in _USES_DEVICES:
        part["platform"] = {"mesh": dump["platform"]["mesh"]}
    return part


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of a configuration file."""
    return PodiumConfig.model_json_schema()
