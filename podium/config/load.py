"""Read a configuration file."""

from collections.abc import Sequence
from pathlib import Path

import yaml
from pydantic import ValidationError

from podium.config.root import PodiumConfig
from podium.errors import UserError


def load_config(path: str | Path, overrides: Sequence[str] = (), notices: list[str] | None = None) -> PodiumConfig:
    """Read, check and complete a YAML or JSON file."""
    return load_config_text(Path(path).read_text("utf-8"), source=str(path), overrides=overrides, notices=notices)


def load_config_text(
    text: str, *, source: str = "configuration", overrides: Sequence[str] = (), notices: list[str] | None = None
) -> PodiumConfig:
    """Check and complete a configuration given as YAML or JSON text."""
    try:
        return PodiumConfig.model_validate(yaml.safe_load(text))
    except ValidationError as error:
        raise UserError(f"{source}: {error}") from error
