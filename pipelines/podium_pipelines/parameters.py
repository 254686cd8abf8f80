"""What a config becomes as pipeline parameters."""

import hashlib
from pathlib import Path
from typing import Any

from podium.config import PodiumConfig, paths, stage_config
from podium.config.carrying import shielded
from podium.storage.digests import file_digest


def stage_parameter(config: PodiumConfig, stage: str) -> dict[str, Any]:
    """Return a stage's config as KFP can carry it.

    KFP's compiler has no null in a dict parameter. Leaving such keys out means the same to a stage, which implies
    nothing: null is the default of every field that may be null (a test holds the config to that). Text that KFP, Argo
    or Kubernetes would take for a placeholder is written so that none of them does.
    """
    parameter: dict[str, Any] = _carried(stage_config(config, stage))
    return parameter


def data_files(config: PodiumConfig) -> list[str]:
    """Return the data files that the config names and this machine has; a pattern stands for its files."""
    return [found for source in config.data.files for found in paths.matches(source.path)]


def data_digest_of(config: PodiumConfig) -> str:
    """Return the SHA-256 of the data files that are on this machine, or "" when none is.

    It is a pipeline parameter, so that KFP's cache sees a changed file behind an unchanged name.
    """
    here = [Path(path) for path in data_files(config)]
    if not here:
        return ""
    return hashlib.sha256("".join(content_digest(path) for path in here).encode()).hexdigest()


def content_digest(path: Path) -> str:
    """Return the SHA-256 of a file, or of a folder's relative names and contents."""
    if path.is_file():
        return file_digest(path)
    files = sorted(file for file in path.rglob("*") if file.is_file())
    listing = "\n".join(f"{file.relative_to(path)} {file_digest(file)}" for file in files)
    return hashlib.sha256(listing.encode()).hexdigest()


def _carried(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _carried(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_carried(item) for item in value]
    return shielded(value) if isinstance(value, str) else value
