"""Where a stage reads and writes: local folders, whatever the artifacts' URIs are."""

import dataclasses
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from podium.config import STAGE_TABLE
from podium.errors import UserError
from podium.models.weights.identity import model_digest
from podium.parallel import distributed
from podium.stages.manifest import (
    MANIFEST,
    WORK,
    content_digest,
    first_damage,
    is_complete,
    read_manifest,
    store_manifest,
    write_manifest,
)
from podium.storage import remote
from podium.storage.failures import unwritable
from podium.storage.files import write_text

if TYPE_CHECKING:
    from podium.training.profiling import Profile

__all__ = ["Result", "StageIO", "is_complete", "read_manifest", "write_manifest"]

METRICS_FILE = "metrics.json"
# Stores that Orbax or TensorStore write themselves, and what they call them.
_KEEPS_CHECKPOINTS = {"gs": "gs", "gcs": "gs", "s3": "s3", "s3a": "s3"}


@dataclass(frozen=True)
class Result:
    """What a stage reports: flat metrics, and per output what the pipeline's UI shows of it."""

    metrics: dict[str, float] = field(default_factory=dict)
    metadata: dict[str, dict[str, Any]] = field(default_factory=dict)


class StageIO:
    """Hand out local paths for the inputs and outputs of a stage.

    An output with a URI is written in a local folder and copied when the stage is complete; an input with a URI is
    copied once, when it is first asked for.
    """

    def __init__(self, inputs: Mapping[str, str], outputs: Mapping[str, str]) -> None:
        """Take the place of each artifact: a path or a gs://, s3:// ... URI."""
        self.inputs = dict(inputs)
        self.outputs = dict(outputs)
        self._root: Path | None = None
        self._here: dict[str, Path] = {}
        self._checkpoints: StageIO | None = None
        # A gs:// or s3:// URI for the checkpoints of all outputs, apart from these.
        self.common_work: str | None = None
        self.profile: Profile | None = None

    @classmethod
    def local(cls, folder: str | os.PathLike[str], **inputs: str | os.PathLike[str]) -> Self:
        """Put every output NAME into folder/NAME."""
        io = cls({name: os.fspath(place) for name, place in inputs.items()}, {})
        io._root = Path(folder).absolute()
        return io

    def aside(self, folder: str | os.PathLike[str]) -> "StageIO":
        """Take the same inputs, put every output NAME into folder/NAME, and leave checkpoints where they are."""
        io = StageIO.local(folder, **self.inputs)
        io._here = {key: path for key, path in self._here.items() if key.startswith("input ")}
        io._checkpoints, io.profile, io.common_work = self, self.profile, self.common_work
        return io

    def input(self, name: str) -> Path:
        """Return the local path of an input.

        Raises:
            UserError: It was not given, is not there, or is not complete.
        """
        if name not in self.inputs:
            raise UserError(f"input {name} is missing; write --input {name}=PATH")
        key = f"input {name}"
        if key not in self._here:
            place = self.inputs[name]
            path = remote.download(place, name) if remote.is_remote(place) else remote.local_path(place)
            _check_input(name, path)
            self._here[key] = path
        return self._here[key]

    def output(self, name: str) -> Path:
        """Return the local path to write an output to; its parent folder exists.

        Where a symbolic link was given, it is what that points to.

        Raises:
            UserError: It was not given, or cannot be written.
        """
        if name not in self._here:
            place = self.place(name)
            path = remote.scratch(name) / name if remote.is_remote(place) else target(place)
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise unwritable(path, error) from error
            self._here[name] = path
        return self._here[name]

    def work(self, name: str) -> str:
        """Return where a stage keeps checkpoints while it writes a folder output: in it, so that they outlive a kill.

        They are removed when the stage is complete. For gs:// and s3:// it is a URI, where another machine finds them;
        so it is where the run has a place for all work (`common_work`).

        Raises:
            UserError: The output is behind a URI where checkpoints cannot be kept.
        """
        if self.common_work is not None:
            return f"{self.common_work}/{name}"
        place = self.place(name) if self._checkpoints is None else self._checkpoints.place(name)
        scheme, _, path = place.rstrip("/").partition("://")
        if remote.is_remote(place) and scheme in _KEEPS_CHECKPOINTS:
            return f"{_KEEPS_CHECKPOINTS[scheme]}://{path}/{WORK}"
        if remote.is_remote(place) and scheme != remote.IN_MEMORY:
            raise UserError(f"output {name}: {scheme}:// keeps no checkpoints; name a gs:// or s3:// URI, or a folder")
        if self._checkpoints is not None and not remote.is_remote(place):
            return str(target(place) / WORK)
        return str(self.output(name) / WORK)

    def place(self, name: str) -> str:
        """Return the path or URI of an output as it was given.

        Raises:
            UserError: It was not given.
        """
        if name in self.outputs:
            return self.outputs[name]
        if self._root is None:
            raise UserError(f"output {name} is missing; write --output {name}=PATH")
        return str(self._root / name)

    def has_output(self, name: str) -> bool:
        """Tell whether an output has a place."""
        return name in self.outputs or self._root is not None

    def input_digests(self) -> dict[str, str]:
        """Return the SHA-256 of each input's contents: from its manifest, or of what loading reads of a bare model."""
        return {name: _input_digest(self.input(name)) for name in sorted(self.inputs)}

    def write_metrics(self, metrics: Mapping[str, float]) -> None:
        """Write metrics.json into the output `metrics`."""
        folder = self.output("metrics")
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / METRICS_FILE, json.dumps(dict(metrics), indent=1, allow_nan=False) + "\n")

    def publish(self, name: str) -> None:
        """Copy a finished output to its URI; a local one is in its place already."""
        if not remote.is_remote(self.place(name)):
            return
        path, place = self.output(name), self.place(name).rstrip("/")
        if path.is_file():
            remote.upload_file(path, place, name)
            _arrived(name, place, {"": path.stat().st_size})
            return
        manifest = read_manifest(path)
        assert manifest is not None, "it is written before"
        # Without its old manifest, a folder that is half replaced is not taken for complete.
        remote.remove(f"{place}/{MANIFEST}")
        remote.upload_folder(path, place, name, manifest.files)
        result = _arrived(name, place, {file: int(entry["size"]) for file, entry in manifest.files.items()})
        stored = {file: result[file].checksum for file in manifest.files if result[file].checksum}
        store_manifest(path, dataclasses.replace(manifest, stored=stored))
        remote.upload_file(path / MANIFEST, f"{place}/{MANIFEST}", name)


def _arrived(name: str, place: str, sizes: Mapping[str, int]) -> dict[str, remote.State]:
    """Return the state of files behind a URI; raise UserError where one is not there with its size."""
    result = remote.states(place)
    for file, size in sizes.items():
        if file not in result or result[file].size != size:
            raise UserError(f"output {name}: {place}/{file} did not arrive whole; start the same command again")
    return result


def target(place: str) -> Path:
    """Return the local path that a place means, with every symbolic link on the way followed.

    Raises:
        UserError: The links lead back to themselves, or the path cannot exist.
    """
    path = remote.local_path(place)
    try:
        result = Path(os.path.realpath(path))
        if result.is_symlink():
            raise UserError(f"{place}: is a symbolic link that leads back to itself; name another place")
    except (OSError, ValueError) as error:
        raise UserError(f"{place}: cannot be used ({error}); name another place") from error
    return result


def producer(name: str) -> str:
    """Return the stage that writes what others take under this name."""
    output = "model" if name == "base" else name
    return next(stage for stage, spec in STAGE_TABLE.items() if output in spec.outputs)


def _check_input(name: str, path: Path) -> None:
    """Refuse an input that is absent, was never finished, or lost bytes on its way; say which stage mends it."""
    if not path.exists():
        raise UserError(f"input {name}: there is nothing at {path}; name what the earlier stage wrote")
    again = f"start podium {producer(name)} again, which writes it anew"
    try:
        manifest = read_manifest(path)
    except UserError as error:
        reason = str(error).partition(";")[0]
        raise UserError(f"input {name}: {reason}; copy it again, or {again} (podium run does so by itself)") from error
    if manifest is None and (path / WORK).exists():
        raise UserError(f"input {name}: {path} is not complete (no {MANIFEST}); {again}")
    # With several processes each reads a part of the weights, and loading checks what they read.
    parts = distributed.count() == 1
    if manifest is not None and (damage := first_damage(path, manifest, parts=parts)):
        again = again.replace(producer(name), manifest.stage)
        raise UserError(f"input {name}: {damage}; copy it again, or {again} (podium run does so by itself)")


def _input_digest(path: Path) -> str:
    if (path / "config.json").is_file() and read_manifest(path) is None:
        return model_digest(path)
    return content_digest(path)
