"""What a configuration names on this machine, looked for before a run: never the network, and nothing heavy."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

from podium.config.accelerators import ACCELERATORS, accelerator_name
from podium.config.data import FILE_FIELDS, Source
from podium.config.document import Keys
from podium.config.model import ModelConfig
from podium.config.paths import is_pattern, matches
from podium.config.root import PodiumConfig

# A model's config.json has some kilobytes.
_LONGEST = 1 << 22
# Weights that other tools write and that are not read from a model folder.
_OTHER_WEIGHTS = (".bin", ".pt", ".pth", ".ckpt", ".gguf", ".h5", ".msgpack", ".npz", ".onnx")


def absent(config: PodiumConfig, *, runs: bool) -> Iterator[tuple[Keys, str]]:
    """Yield key and reason of each file or model folder that a run on this machine would fail on.

    Where nothing `runs` yet, config.json alone is enough of a model, as for `podium plan`.
    """
    for keys, source in _sources(config):
        if "://" not in source.path and (reason := _unreadable_data(source.path)) is not None:
            yield keys, reason
    for keys, model in _models(config):
        if "://" not in model.name_or_path and (reason := _unreadable_model(model.name_or_path, runs=runs)):
            yield keys, reason


def unknown_accelerators(config: PodiumConfig) -> Iterator[tuple[Keys, str]]:
    """Yield key and reason of each accelerator that no target has."""
    for stage, wanted in config.platform.resources.items():
        if wanted.accelerator is not None and accelerator_name(wanted.accelerator) not in ACCELERATORS:
            reason = f"{wanted.accelerator!r} is unknown; write one of {', '.join(ACCELERATORS)}"
            yield ("platform", "resources", stage, "accelerator"), reason


def unchecked(config: PodiumConfig) -> Iterator[str]:
    """Yield a note for each name that only the network, or another machine, could check."""
    target = config.platform.target
    named = [(keys, source.path) for keys, source in _sources(config)]
    named += [((*keys, "name_or_path"), model.name_or_path) for keys, model in _models(config)]
    for keys, place in named:
        key = ".".join(str(part) for part in keys)
        if "://" in place:
            yield f"{key}: {place} is not checked: that would need the network"
        elif not os.path.isabs(place):
            yield f"{key}: {place} is not checked: the Hugging Face Hub has it, or its cache here"
        elif target != "local" and not os.path.exists(place) and not is_pattern(place):
            yield f"{key}: {place} is not on this machine; not checked, as {target} reads it"
    for keys, model in _models(config):
        # Prepare reads a tokenizer alone, and is worth running while the weights are still on their way.
        folder = model.name_or_path
        if not os.path.isabs(folder) or not os.path.isdir(folder) or not os.access(folder, os.R_OK | os.X_OK):
            continue
        names, key = set(os.listdir(folder)), ".".join(str(part) for part in (*keys, "name_or_path"))
        if "config.json" in names and not _has(names, ".safetensors", "tokenizer.json"):
            yield f"{key}: {folder} holds config.json alone: enough for podium plan, and for no stage"
        elif not _has(names, ".safetensors"):
            yield f"{key}: {folder} holds no weights yet; all stages but prepare need them"


def _sources(config: PodiumConfig) -> Iterator[tuple[Keys, Source]]:
    for name in FILE_FIELDS:
        for index, source in enumerate(getattr(config.data, name) or ()):
            yield ("data", name, index, "path"), source


def _models(config: PodiumConfig) -> Iterator[tuple[Keys, ModelConfig]]:
    yield ("model",), config.model
    if config.reward.model is not None:
        yield ("reward", "model"), config.reward.model


def _unreadable_data(path: str) -> str | None:
    # os.path.exists: a path that is too long, or in a folder that may not be read, is not there.
    if not os.path.exists(path):
        if not is_pattern(path):
            return f"{_shown(path)}: no such file here; check the path"
        return None if matches(path) else f"{_shown(path)}: no file fits this pattern; check the path"
    return None if os.access(path, os.R_OK) else f"{_shown(path)}: cannot be read; check its permissions"


def _unreadable_model(name: str, *, runs: bool) -> str | None:
    """Return why a model folder cannot be loaded, as far as names and config.json tell; a name of the Hub is none."""
    if not os.path.isabs(name):
        return None
    shown = _shown(name)
    if not os.path.exists(name):
        return f"{shown}: no such model folder here; check the path"
    folder = Path(name)
    if not folder.is_dir():
        return f"{shown}: is a file; write a model folder (podium import-weights makes one of a .gguf file)"
    try:
        names = set(os.listdir(name))
        if "adapter_config.json" not in names and "config.json" not in names:
            return f"{shown}: has no config.json; write the path of a model folder"
        useless = _has(names, *_OTHER_WEIGHTS) or (runs and not _has(names, "tokenizer.json"))
        if useless and not _has(names, ".safetensors"):
            return f"{shown}: has no safetensors; write the path of a model folder, or see podium import-weights"
        if "config.json" in names:
            with (folder / "config.json").open("rb") as file:
                content = json.loads(file.read(_LONGEST))
            if not isinstance(content, dict) or not isinstance(content.get("model_type"), str):
                return f"{shown}: config.json names no model_type; write the path of a model folder"
    except OSError as error:
        return f"{shown}: cannot be read: {error.strerror}; check its permissions"
    except (ValueError, RecursionError):
        return f"{shown}: config.json is not JSON; copy the folder again"
    return None


def _has(names: set[str], *endings: str) -> bool:
    return any(name.endswith(endings) for name in names)


def _shown(path: str) -> str:
    return path if len(path) <= 160 else f"{path[:80]}...{path[-60:]}"
