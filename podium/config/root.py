"""The whole configuration, and the part of it that one stage reads."""

from collections.abc import Mapping
from typing import Any, Self

from pydantic import Field, model_validator

from podium.config.base import Section, Seed, fail
from podium.config.data import FILE_FIELDS, DataConfig
from podium.config.model import ModelConfig
from podium.config.platform import PlatformConfig
from podium.config.ppo import PpoConfig
from podium.config.stage_table import STAGE_TABLE, STAGES
from podium.config.stages import EvaluationConfig, ExportConfig, RewardConfig, SampleConfig, SftConfig

# How often a training section saves, which no result depends on.
_SAVING = ("save_steps", "save_minutes")
_PARTS = ("per_device_batch_size", "gradient_accumulation_steps")
# What of `platform` a stage is told.
_PLATFORM = ("mesh", "start_timeout", "heartbeat_timeout", "step_timeout", "compilation_cache")


class PodiumConfig(Section):
    """Everything a run is told; only model.name_or_path has no default."""

    seed: Seed = Field(0, description="Start of every random stream; equal seeds give equal bytes.")
    model: ModelConfig = Field(description="The pretrained model that a run starts from.")
    data: DataConfig = Field(DataConfig(), description="Input files and limits.")
    sft: SftConfig | None = Field(
        None, description="Supervised fine-tuning before all else ({} takes the defaults); null leaves it out."
    )
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
        # Nor is the sft stage handed the files. Who names preferences here describes a whole run.
        if self.sft is not None and self.data.preferences and not self.data.demonstrations:
            fail("data.demonstrations", "sft learns from them; name a file of demonstrations, or leave sft out")
        return self


def stages_of(config: PodiumConfig) -> tuple[str, ...]:
    """Return the stages of a run of this config in their order: sft is one where it has a section."""
    return tuple(stage for stage in STAGES if stage != "sft" or config.sft is not None)


def edges_of(config: PodiumConfig) -> dict[str, dict[str, str]]:
    """Return where the inputs of each stage of a run come from, as {STAGE: {INPUT: STAGE/OUTPUT}}."""
    stages = stages_of(config)
    return {
        stage: {one.name: f"{one.stage}/{one.output}" for one in STAGE_TABLE[stage].takes if one.stage in stages}
        for stage in stages
    }


def stage_config(config: PodiumConfig, stage: str) -> dict[str, Any]:
    """Return what `stage` reads, ready for JSON: a change elsewhere leaves its cache alone.

    Only `prepare` sees the names of the data files; of `platform` a stage sees what concerns its processes.
    """
    dump = config.model_dump(mode="json")
    spec = STAGE_TABLE[stage]
    part = {"seed": dump["seed"]}
    for section in spec.sections:
        name, single, key = section.partition(".")
        part[name] = {key: dump[name][key]} if single else dump[name]
    if "data" in part and not spec.reads_data_files:
        part["data"] = {key: value for key, value in part["data"].items() if key not in FILE_FIELDS}
    if spec.uses_devices:
        part["platform"] = {key: dump["platform"][key] for key in _PLATFORM}
    if "evaluation" in part:
        # What follows from a failed gate is no part of what is measured: to change it repeats no evaluation.
        gates = part["evaluation"]["gates"]
        what_follows = {"on_failure": gates.pop("on_failure")}
        if stage == "gates":
            part["evaluation"] = {"gates": what_follows}
    return part


def deciding(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of a stage's config its results depend on: keys and fingerprints are made of this.

    Not where it runs, nor in how many parts a step is computed, if it is known how many rows it has.
    """
    return {name: _deciding(value) for name, value in settings.items() if name != "platform"}


def _deciding(section: Any) -> Any:
    if not isinstance(section, dict):
        return section
    without = _SAVING + (_PARTS if section.get("global_batch_size") is not None else ())
    return {key: value for key, value in section.items() if key not in without}


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of a configuration file."""
    return PodiumConfig.model_json_schema()
