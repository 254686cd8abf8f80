"""The manifest of an artifact: written last, so that its presence means complete."""

import importlib.metadata
import json
import os
import platform
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from podium.config import PodiumConfig, deciding
from podium.errors import UserError
from podium.storage.digests import Tell, at_once, file_digest, value_digest
from podium.storage.files import write_text
from podium.storage.parts import MANIFEST as MANIFEST
from podium.storage.parts import TREE, has_parts, whole_and_parts
from podium.training.progress import Progress
from podium.version import __version__

T = TypeVar("T")
# What a stage keeps in an output until it is complete: checkpoints, and the note that says whose they are.
WORK = ".work"
# And there, the programs that it has compiled (`podium.stages.compiled`), for whoever starts it again.
COMPILED = "compiled"
# The digests of configured models, beside those of inputs, have the names that they have in the config.
MODEL, REWARD_MODEL = "model.name_or_path", "reward.model.name_or_path"
_LIBRARIES = ("jax", "flax", "optax", "orbax-checkpoint", "transformers", "numpy")
# Reading less takes a second or two.
_SHOWN_FROM = 1 << 30
_MB = 1_000_000
# A thousand files take 200 kB.
_LARGEST = 64 << 20
_SEAL = "sha256"


@dataclass(frozen=True)
class Manifest:
    """What a complete artifact says of itself.

    `files` maps relative names to {"size", "sha256"}, and those that several processes read in parts to {"tree_sha256"}
    (`podium.storage.parts`) as well; `siblings` does so for outputs of the same stage that are one
    file each and can hold no manifest. `key` is the digest of stage, config and inputs. `stored` maps names to the
    checksum that an object store has of its copy, where the artifact is in one.
    """

    stage: str
    key: str
    files: Mapping[str, Mapping[str, Any]]
    siblings: Mapping[str, Mapping[str, Any]]
    config: Mapping[str, Any]
    inputs: Mapping[str, str]
    metrics: Mapping[str, float]
    metadata: Mapping[str, Mapping[str, Any]]
    stored: Mapping[str, str] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """The SHA-256 of the artifact's contents."""
        return value_digest({name: {"size": x["size"], "sha256": x["sha256"]} for name, x in self.files.items()})

    @property
    def size(self) -> int:
        """The number of bytes of all files."""
        return sum(int(entry["size"]) for entry in self.files.values())


def task_key(stage: str, config: Mapping[str, Any], inputs: Mapping[str, str]) -> str:
    """Return the digest of what decides a stage's results: equal keys, equal results.

    A model whose contents are among the inputs counts by them alone: one that was moved is the same model.
    """
    return value_digest({"stage": stage, "config": without_known_names(deciding(config), inputs), "inputs": inputs})


def without_known_names(config: Mapping[str, Any], inputs: Mapping[str, str]) -> dict[str, Any]:
    """Leave out of a stage's config where a model is, if its digest is among the inputs."""
    kept = dict(config)
    if MODEL in inputs or "model" in inputs:
        kept["model"] = _unnamed(kept.get("model"))
    reward = kept.get("reward")
    # An adapter of the reward model says where its base was, and the stages behind it look there.
    if REWARD_MODEL in inputs and reward and not reward.get("lora"):
        kept["reward"] = {**reward, "model": _unnamed(reward.get("model"))}
    return kept


def _unnamed(model: Mapping[str, Any] | None) -> dict[str, Any]:
    return {name: value for name, value in (model or {}).items() if name not in ("name_or_path", "revision")}


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
        files=_entries({path.relative_to(root).as_posix(): path for path in contents(root)}, root.name),
        siblings=_entries(dict(sorted((siblings or {}).items())), root.name),
        config=settings,
        inputs=dict(inputs),
        metrics=dict(metrics or {}),
        metadata=dict(metadata or {}),
    )
    store_manifest(root, manifest)
    return manifest


def store_manifest(folder: Path, manifest: Manifest) -> None:
    """Write manifest.json in one rename, with the digest of what it says itself."""
    values = {"podium": __version__, "versions": versions(), **vars(manifest)}
    if not manifest.stored:
        del values["stored"]
    seal = value_digest(json.loads(json.dumps(values, allow_nan=False)))  # of what a reader gets
    text = json.dumps({**values, _SEAL: seal}, indent=1, allow_nan=False)
    write_text(folder / MANIFEST, text + "\n")


def read_manifest(folder: str | os.PathLike[str]) -> Manifest | None:
    """Return the manifest of a folder, or None where there is none.

    Raises:
        UserError: It is damaged, or none of Podium's.
    """
    path = Path(folder, MANIFEST)
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error}); delete the folder and run its stage again") from error
    return parse_manifest(content, str(path))


def parse_manifest(content: bytes, where: str) -> Manifest:
    """Read a manifest. Raises UserError where it is damaged, or none of Podium's."""
    if len(content) > _LARGEST:
        raise UserError(f"{where}: is too large for a manifest; delete the folder and run its stage again")
    try:
        values = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: cannot be read ({error}); delete the folder and run its stage again") from error
    if not isinstance(values, dict) or not _is_manifest(values):
        raise UserError(f"{where}: is not a manifest of Podium; name an artifact that a stage wrote")
    # Those of earlier versions have no seal.
    seal = values.pop(_SEAL, None)
    if seal is not None and seal != value_digest(values):
        raise UserError(f"{where}: was changed after it was written; delete the folder and run its stage again")
    return Manifest(**{name: values[name] for name in Manifest.__dataclass_fields__ if name in values})


def _is_manifest(values: Mapping[str, Any]) -> bool:
    """Tell whether names and types are a manifest's; no file of it is outside of its folder."""
    texts, tables = ("stage", "key"), ("files", "siblings", "config", "inputs", "metrics", "metadata")
    if not all(isinstance(values.get(name), str) for name in texts):
        return False
    if not all(isinstance(values.get(name), dict) for name in tables) or not isinstance(values.get("stored", {}), dict):
        return False
    entries = [*values["files"].items(), *values["siblings"].items()]
    return all(
        isinstance(entry, dict) and type(entry.get("size")) is int and isinstance(entry.get("sha256"), str)
        for _, entry in entries
    ) and not any(PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts for name, _ in entries)


def is_complete(folder: str | os.PathLike[str]) -> bool:
    """Tell whether a folder has its manifest, and every file that it notes is there with that size and digest."""
    manifest = read_manifest(folder)
    return manifest is not None and first_damage(Path(folder), manifest) is None


def first_damage(folder: Path, manifest: Manifest, *, parts: bool = True) -> str | None:
    """Return what is wrong with the first file that is missing, or has another size or digest than noted.

    parts: whether to read those, too, that several processes check while each reads a part of them.
    """
    for name, entry in manifest.files.items():
        path = folder / name
        if not path.is_file():
            return f"{path} is missing"
        if path.stat().st_size != entry["size"]:
            return f"{path} has {path.stat().st_size} bytes instead of {entry['size']}"
    paths = {folder / name: entry["sha256"] for name, entry in manifest.files.items() if parts or TREE not in entry}
    for path, digest in _of_each(file_digest, list(paths), folder.name).items():
        if digest != paths[path]:
            return f"{path} has another content than {MANIFEST} notes (sha256)"
    return None


def contents(root: Path) -> list[Path]:
    """Return the files that belong to an artifact, sorted: not its manifest, not work in progress."""
    # A kill may leave the manifest under the name that it has while it is written.
    apart = (root / MANIFEST, root / f"{MANIFEST}.tmp")
    return sorted(
        path
        for path in root.rglob("*")
        if path.is_file() and path not in apart and WORK not in path.relative_to(root).parts
    )


def content_digest(path: Path) -> str:
    """Return the SHA-256 of a file, or of the names and contents of a folder; a manifest speaks for its folder."""
    if path.is_file():
        return file_digest(path)
    manifest = read_manifest(path)
    if manifest is not None:
        return manifest.digest
    return value_digest(_entries({file.relative_to(path).as_posix(): file for file in contents(path)}, path.name))


def versions() -> dict[str, str]:
    """Return the versions that results may depend on, without importing anything."""
    result = {"python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            result[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return result


def _entries(files: Mapping[str, Path], label: str) -> dict[str, dict[str, Any]]:
    """Return size and digests of files by name."""
    digests = _of_each(_entry, list(files.values()), label)
    return {name: digests[path] for name, path in files.items()}


def _entry(path: Path, tell: Tell) -> dict[str, Any]:
    size = path.stat().st_size
    if not has_parts(path, size):
        return {"size": size, "sha256": file_digest(path, tell)}
    whole, tree = whole_and_parts(path, tell)
    return {"size": size, "sha256": whole, TREE: tree}


def _of_each(digest: Callable[[Path, Tell], T], paths: Sequence[Path], label: str) -> dict[Path, T]:
    """Return what `digest` gives for each file, and show how far it is where that takes a while."""
    total = sum(path.stat().st_size for path in paths)
    if total < _SHOWN_FROM:
        return dict(zip(paths, at_once(digest, paths), strict=True))
    whole, done, lock = -(-total // _MB), 0, threading.Lock()
    with Progress(whole, f"checking {label}, MB", unit="MB") as progress:

        def tell(size: int) -> None:
            nonlocal done
            with lock:
                done += size
                progress.update(whole if done == total else done // _MB)

        return dict(zip(paths, at_once(digest, paths, tell), strict=True))
