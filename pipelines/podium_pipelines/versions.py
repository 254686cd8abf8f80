"""What is in the files that tasks read beside their artifacts: parameters, so that a cache sees when they change.

KFP's cache goes by the values of a task's parameters, where a file is a name. `compile` touches no network: what it
cannot know is None, and tasks that read it are not cached. `submit` asks the stores.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from podium.config import MODEL_FILES, STAGE_TABLE, ModelConfig, PodiumConfig, paths
from podium.storage import hub, remote
from podium.storage.digests import file_digest, value_digest


@dataclass(frozen=True)
class Versions:
    """One digest each for data files, `model` and `reward.model`: "" where a config names none, None where unknown."""

    data: str | None = ""
    model: str | None = ""
    reward_model: str | None = ""

    @property
    def parameters(self) -> dict[str, str | None]:
        """Return them by the names of the pipeline's parameters."""
        return {f"{name}_version": value for name, value in vars(self).items()}


def known_here(config: PodiumConfig) -> Versions:
    """Return the versions of what is on this machine, or can never change; ask nobody."""
    return _versions(config, lambda place: None, lambda model: None)


def resolved(config: PodiumConfig, say: Callable[[str], None]) -> Versions:
    """Ask stores and the Hub for the versions of what is elsewhere; say what cannot be known from here.

    Raises:
        UserError: There is nothing at a URI.
    """

    def asked(look: Callable[[], str]) -> str | None:
        try:
            return look()
        except remote.Unreachable as error:
            say(f"{error}; tasks that read it are not cached")
            return None

    return _versions(
        config,
        lambda uri: asked(lambda: remote.version_of(uri)),
        lambda model: asked(lambda: _version_elsewhere(model)),
    )


def parameters_of(config: PodiumConfig, stage: str) -> tuple[str, ...]:
    """Return the names of the versions that a stage's task depends on."""
    spec = STAGE_TABLE[stage]
    result = []
    if spec.reads_data_files:
        result.append("data_version")
    if spec.reads_model and (config.sft is None or spec.from_sft is None):
        result.append("model_version")
    if stage == "reward" and config.reward.model is not None:
        result.append("reward_model_version")
    return tuple(result)


def _versions(
    config: PodiumConfig,
    version_of_file: Callable[[str], str | None],
    version_of_model: Callable[[ModelConfig], str | None],
) -> Versions:
    data = [
        version_of_file(source.path) if remote.is_remote(source.path) else _digest_here(source.path)
        for source in config.data.files
    ]
    models = [
        "" if model is None else _model_here(model) if _is_fixed(model) else version_of_model(model)
        for model in (config.model, config.reward.model)
    ]
    return Versions(None if None in data else value_digest(data) if any(data) else "", *models)


def _digest_here(path: str) -> str:
    """Return the digest of the files that a path or pattern stands for on this machine, "" where there are none."""
    result = paths.matches(path)
    return value_digest([file_digest(Path(file)) for file in result]) if result else ""


def _is_fixed(model: ModelConfig) -> bool:
    """Tell whether no network has a say in what a model is: a path, here or in the image, or a commit of the Hub."""
    name = model.name_or_path
    if remote.is_remote(name):
        return False
    return Path(name).exists() or name.startswith(("/", ".", "~")) or hub.is_commit(model.revision)


def _model_here(model: ModelConfig) -> str:
    folder = Path(model.name_or_path)
    files = sorted({file for pattern in MODEL_FILES for file in folder.rglob(pattern) if file.is_file()})
    return value_digest([[str(file.relative_to(folder)), file_digest(file)] for file in files]) if files else ""


def _version_elsewhere(model: ModelConfig) -> str:
    if remote.is_remote(model.name_or_path):
        return remote.version_of(model.name_or_path, MODEL_FILES)
    return hub.commit_of(model.name_or_path, model.revision)
