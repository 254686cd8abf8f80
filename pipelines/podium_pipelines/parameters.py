"""What a config becomes as pipeline parameters."""

from typing import Any

from podium.config import PodiumConfig, paths, stage_config
from podium.config.carrying import shielded


def stage_parameter(config: PodiumConfig, stage: str) -> dict[str, Any]:
    """Return a stage's config as KFP can carry it.

    KFP's compiler has no null in a dict parameter. Leaving such keys out means the same to a stage, which implies
    nothing: null is the default of every field that may be null (a test holds the config to that). Text that KFP, Argo
    or Kubernetes would take for a placeholder is written so that none of them does.
    """
    parameter: dict[str, Any] = _carried(stage_config(config, stage))
    return parameter


def data_files(config: PodiumConfig) -> list[str]:
    """Return the data files and folders that the config names and this machine has; a pattern stands for its files."""
    return [result for source in config.data.files for result in paths.matches(source.path)]


def _carried(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _carried(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_carried(item) for item in value]
    return shielded(value) if isinstance(value, str) else value
