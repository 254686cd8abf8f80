"""What a plan reads of models: config.json, nothing else."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from podium.config import ModelConfig, PodiumConfig
from podium.errors import UserError
from podium.models.families.config_json import parse_config
from podium.models.hub import find_folder
from podium.models.weights.json_file import read_json


def models_of(config: PodiumConfig, stage: str) -> dict[str, Mapping[str, Any]]:
    """Read config.json of the models that a stage has: "policy", and "reward" where that is one of its own.

    Raises UserError where there is none, or it is of no supported family.
    """
    named = {"policy": config.model}
    if stage in ("ppo", "reward") and config.reward.model is not None:
        named["reward"] = config.reward.model
    return {name: _read(model, "model" if name == "policy" else "reward.model") for name, model in named.items()}


def _read(model: ModelConfig, key: str) -> Mapping[str, Any]:
    path = Path(find_folder(model.name_or_path, model.revision, weights=False)) / "config.json"
    if not path.is_file():
        raise UserError(f"{key}.name_or_path: {path.parent} has no config.json; a plan needs it, and no other file")
    raw: Mapping[str, Any] = read_json(path)
    parse_config(raw, str(path), dtype=model.dtype)
    return raw
