"""The manifest of an artifact: written last, so that its presence means complete."""

import importlib.metadata
import json
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from podium.config import PodiumConfig, deciding
from podium.errors import UserError
from podium.storage.digests import file_digest, value_digest
from podium.storage.files import write_text
from podium.version import __version__

MANIFEST = "manifest.json"
# What a stage keeps in an output until it is complete: checkpoints, and the note that says whose they are.
WORK = ".work"
_LIBRARIES = ("jax", "flax", "optax", "orbax-checkpoint", "transformers", "numpy")


@dataclass(frozen=True)
class Manifest:
    """What a complete artifact says of itself.

    `files` maps relative names to {"size", "sha256"}; `siblings` does so for outputs of the same stage that are one
    file each and can hold no manifest. `key` is the digest of stage, config and inputs.
    """

    stage: str
    key: str
    files: Mapping[str, Mapping[str, Any]]
    siblings: Mapping[str, Mapping[str, Any]]
    config: Mapping[str, Any]
    inputs: Mapping[str, str]
    metrics: Mapping[str, float]
    metadata: Mapping[str, Mapping[str, Any]]

    @property
    def digest(self) -> str:
        """The SHA-256 of the artifact's contents."""
        return value_digest(self.files)

    @property
    def size(self) -> int:
        """The number of bytes of all files."""
        return sum(int(entry["size"]) for entry in self.files.values())


def task_key(stage: str, config: Mapping[str, Any], inputs: Mapping[str, str]) -> str:
    """Return the digest of what decides a stage's results: equal keys, equal results."""
    return value_digest({"stage": stage, "config": deciding(config), "inputs": inputs})


def write_manifest(
    folder: str | os.PathLike[str],
    *,
    stage: str,
    config: PodiumConfig | Mapping[str, Any],
    inputs: Mapping[str, str],
    siblings: Mapping[str, Path] | None = None,
    metrics: Mapping[str, float] | None = None,
    metadata: Mapping[str, Mapping[str, Any]] | None = None,
) -> Manifest:
    """Describe every file of a folder and put manifest.json beside them, in one rename.

    `inputs` maps names to digests. Nothing in the manifest depends on the time or the machine's paths beyond `config`.
    """
    root = Path(folder)
    settings = config.model_dump(mode="json") if isinstance(config, PodiumConfig) else dict(config)
    manifest = Manifest(
        stage=stage,
        key=task_key(stage, settings, inputs),
        files={str(path.relative_to(root)): _entry(path) for path in contents(root)},
        siblings={name: _entry(path) for name, path in sorted((siblings or {}).items())},
        config=settings,
        inputs=dict(inputs),
        metrics=dict(metrics or {}),
        metadata=dict(metadata or {}),
    )
    text = json.dumps({"podium": __version__, "versions": versions(), **vars(manifest)}, indent=1, allow_nan=False)
    write_text(root / MANIFEST, text + "\n")
    return manifest


def read_manifest(folder: str | os.PathLike[str]) -> Manifest | None:
    """Return the manifest of a folder, or None where it is not complete."""
    path = Path(folder, MANIFEST)
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}); delete the folder and run its stage again") from error
    names = Manifest.__dataclass_fields__
    if not isinstance(values, dict) or not values.keys() >= names.keys():
        raise UserError(f"{path}: is not a manifest of Podium; name an artifact that a stage wrote")
    return Manifest(**{name: values[name] for name in names})


def is_complete(folder: str | os.PathLike[str]) -> bool:
    """Tell whether a folder has its manifest and every file in it has the size noted there."""
    manifest = read_manifest(folder)
    return manifest is not None and first_damage(Path(folder), manifest) is None


def first_damage(folder: Path, manifest: Manifest, *, contents: bool = False) -> str | None:
    """Return what is wrong with the first file that is missing or has another size or, if asked, digest than noted."""
    for name, entry in manifest.files.items():
        path = folder / name
        if not path.is_file():
            return f"{path} is missing"
        if path.stat().st_size != entry["size"]:
            return f"{path} has {path.stat().st_size} bytes instead of {entry['size']}"
        if contents and file_digest(path) != entry["sha256"]:
            return f"{path} has another content than {MANIFEST} notes (sha256)"
    return None


def contents(root: Path) -> list[Path]:
    """Return the files that belong to an artifact, sorted: not its manifest, not work in progress."""
    return sorted(
        path
        for path in root.rglob("*")
        if path.is_file() and path != root / MANIFEST and WORK not in path.relative_to(root).parts
    )


def content_digest(path: Path) -> str:
    """Return the SHA-256 of a file, or of the names and contents of a folder; a manifest speaks for its folder."""
    if path.is_file():
        return file_digest(path)
    manifest = read_manifest(path)
    if manifest is not None:
        return manifest.digest
    return value_digest({str(file.relative_to(path)): _entry(file) for file in contents(path)})


def versions() -> dict[str, str]:
    """Return the versions that results may depend on, without importing anything."""
    found = {"python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _entry(path: Path) -> dict[str, Any]:
    return {"size": path.stat().st_size, "sha256": file_digest(path)}
