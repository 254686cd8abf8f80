"""Run a stage once: skip it where its outputs are complete, clear what another config left, finish with manifests."""

import glob
import hashlib
import importlib
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from podium.config import PodiumConfig, stage_config
from podium.errors import UserError
from podium.stages.io import SPECS, Result, StageIO
from podium.stages.manifest import (
    MANIFEST,
    WORK,
    Manifest,
    content_digest,
    first_damage,
    read_manifest,
    task_key,
    write_manifest,
)
from podium.storage import remote
from podium.storage.failures import full_disk, is_full_disk, unwritable
from podium.storage.files import write_text

_NOTE = "task"
# A model's weights are recognised by name, size and time: reading gigabytes at each start is not worth it.
_READ_WHOLE = 1 << 20


def run_stage(
    stage: str,
    config: PodiumConfig,
    io: StageIO,
    *,
    run: Callable[[PodiumConfig, StageIO], Result] | None = None,
    say: Callable[[str], None] = print,
) -> tuple[Result, bool]:
    """Run `podium.stages.<stage>.run`, or take what an equal run left; return its result and whether it was skipped.

    `run` stands in for the stage in tests.

    Raises:
        UserError: An input or output cannot be used, or the disk is full; no manifest is written then.
    """
    settings = stage_config(config, stage)
    if settings.get(stage, {}) is None:
        raise UserError(f"podium {stage}: the configuration has no section {stage}; {stage}: {{}} takes its defaults")
    digests = io.input_digests() | _outside(stage, config, io)
    key = task_key(stage, settings, digests)
    if (done := _finished(stage, key, io)) is not None:
        say(f"podium {stage}: complete for this config and these inputs; nothing to do")
        return done, True
    keep = settings.get(stage, {}).get("resume") != "never"
    names = [name for name in SPECS[stage].outputs if io.has_output(name)]
    try:
        for name in names:
            _clear(io, name, key, keep=keep, is_file=name in SPECS[stage].files)
        program = run or importlib.import_module(f"podium.stages.{stage}").run
        result: Result = program(config, io)
        _finish(stage, settings, digests, io, result, names)
    except UserError:
        raise
    except Exception as error:
        if is_full_disk(error):
            raise full_disk(io.output(names[0]).parent) from error
        raise
    return result, False


def _finished(stage: str, key: str, io: StageIO) -> Result | None:
    """Return the stored result where every output is complete and was made from the same config and inputs."""
    spec = SPECS[stage]
    manifest: Manifest | None = None
    for name in spec.outputs:
        if not io.has_output(name) or name in spec.files:
            continue
        manifest = _manifest(io, name)
        if manifest is None or manifest.key != key:
            return None
    if manifest is None or any(not _same_file(io, name, manifest) for name in spec.files if io.has_output(name)):
        return None
    return Result(dict(manifest.metrics), {name: dict(values) for name, values in manifest.metadata.items()})


def _manifest(io: StageIO, name: str) -> Manifest | None:
    """Return the manifest of an output whose files are all there."""
    place = io.place(name)
    if not remote.is_remote(place):
        folder = remote.local_path(place)
        manifest = read_manifest(folder)
        return manifest if manifest is not None and first_damage(folder, manifest) is None else None
    content = remote.read_bytes(f"{place.rstrip('/')}/{MANIFEST}")
    if content is None:
        return None
    folder = remote.scratch(name)
    (folder / MANIFEST).write_bytes(content)
    return read_manifest(folder)


def _same_file(io: StageIO, name: str, manifest: Manifest) -> bool:
    """Tell whether an output that is one file is as a sibling's manifest describes it."""
    place, entry = io.place(name), manifest.siblings.get(name)
    if entry is None:
        return False
    if remote.is_remote(place):
        content = remote.read_bytes(place)
        return content is not None and hashlib.sha256(content).hexdigest() == entry["sha256"]
    path = remote.local_path(place)
    return path.is_file() and content_digest(path) == entry["sha256"]


def _clear(io: StageIO, name: str, key: str, *, keep: bool, is_file: bool) -> None:
    """Empty an output, unless `keep` holds and an interrupted run of the same task left it: its checkpoints are of use.

    Raises:
        UserError: The output holds what no stage wrote, or cannot be written.
    """
    path = io.output(name)
    note = path / WORK / _NOTE
    try:
        if is_file:
            path.unlink(missing_ok=True)
            return
        if keep and note.exists() and note.read_text(encoding="utf-8") == key and not (path / MANIFEST).exists():
            return
        if path.exists():
            _remove(path, name)
        note.parent.mkdir(parents=True)
        write_text(note, key)
    except OSError as error:
        raise unwritable(path, error) from error


def _remove(path: Path, name: str) -> None:
    """Remove an output folder that a stage wrote; it leaves its place in one step, so a kill leaves no half of it."""
    ours = (path / WORK).exists() or (path / MANIFEST).exists() or (path.is_dir() and not any(path.iterdir()))
    if not ours:
        raise UserError(f"output {name}: {path} holds files that no stage wrote; name a new or an empty folder")
    old = path.with_name(f".{path.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    path.rename(old)
    shutil.rmtree(old)


def _finish(
    stage: str, settings: Mapping[str, Any], digests: Mapping[str, str], io: StageIO, result: Result, names: list[str]
) -> None:
    """Write metrics, remove work in progress, describe every output, and copy them to their URIs."""
    spec = SPECS[stage]
    if "metrics" in names:
        io.write_metrics(result.metrics)
    siblings = {name: io.output(name) for name in names if name in spec.files}
    missing = [name for name in names if not io.output(name).exists()]
    if missing:
        raise RuntimeError(f"stage {stage} wrote no output {', '.join(missing)}")
    for name in siblings:
        io.publish(name)
    for name in names:
        if name in siblings:
            continue
        write_manifest(
            io.output(name),
            stage=stage,
            config=settings,
            inputs=digests,
            siblings=siblings,
            metrics=result.metrics,
            metadata=result.metadata,
        )
        shutil.rmtree(io.output(name) / WORK, ignore_errors=True)
        io.publish(name)


def _outside(stage: str, config: PodiumConfig, io: StageIO) -> dict[str, str]:
    """Return digests of what a stage reads beside its inputs: data files, models on this machine."""
    found = {}
    # An input `model` stands in for the configured one.
    models = {} if "model" in io.inputs else {"model": config.model}
    if stage == "reward" and config.reward.model is not None:
        models["reward.model"] = config.reward.model
    for name, model in models.items():
        if Path(model.name_or_path).exists():
            found[name] = _model_digest(Path(model.name_or_path))
    if stage == "prepare":
        found |= {source.path: _source_digest(source.path) for source in config.data.files}
    return found


def _source_digest(path: str) -> str:
    """Return what changes when a data file does; the stage itself reports one that is missing."""
    if remote.is_remote(path):
        return remote.version_of(path)
    files = sorted(glob.glob(path)) if glob.has_magic(path) and not Path(path).exists() else [path]
    return ",".join(content_digest(Path(file)) for file in files if Path(file).exists())


def _model_digest(model: Path) -> str:
    """Return what changes when a local model does: contents of small files, size and time of large ones."""
    files = [model] if model.is_file() else sorted(path for path in model.rglob("*") if path.is_file())
    entries = []
    for path in files:
        state = path.stat()
        mark = content_digest(path) if state.st_size < _READ_WHOLE else f"{state.st_size} {state.st_mtime_ns}"
        entries.append([str(path.relative_to(model)), mark])
    return hashlib.sha256(json.dumps(entries).encode()).hexdigest()
