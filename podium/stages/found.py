"""What lies where a stage is to write, on this machine or behind a URI."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from podium.errors import UserError
from podium.stages.io import StageIO, target
from podium.stages.manifest import COMPILED, MANIFEST, WORK, Manifest, first_damage, parse_manifest, read_manifest
from podium.storage import remote
from podium.storage.files import write_text
from podium.storage.staging import remove_leftovers

# In the folder of work in progress: the key of the task that is at work.
NOTE = "task"


@dataclass(frozen=True)
class Here:
    """An output on this machine; `siblings` are the folders that the same command writes."""

    name: str
    path: Path
    is_file: bool
    siblings: "tuple[Here | There, ...]" = ()

    @property
    def exists(self) -> bool:
        """Tell whether there is something, be it an empty folder."""
        return self.path.exists()

    @cached_property
    def manifest(self) -> Manifest | None:
        """The manifest, where there is a sound one."""
        try:
            return None if self.is_file else read_manifest(self.path)
        except UserError:
            return None

    @cached_property
    def note(self) -> str | None:
        """The key of the task that is, or was, at work here."""
        try:
            return (self.path / WORK / NOTE).read_text(encoding="utf-8")
        except (OSError, ValueError):
            return None

    @property
    def has_checkpoints(self) -> bool:
        """Tell whether there is work in progress beyond the note and compiled programs."""
        work = self.path / WORK
        return work.is_dir() and any(not path.name.startswith((NOTE, COMPILED)) for path in work.iterdir())

    @property
    def is_foreign(self) -> bool:
        """Tell whether there are files that no stage wrote, or a folder in place of a file, or the reverse."""
        if not self.exists:
            return False
        if self.is_file:
            return not self.path.is_file() or not _is_known(self.name, self.siblings)
        if not self.path.is_dir():
            return True
        return not (self.note is not None or self._is_sealed() or {path.name for path in self.path.iterdir()} <= {WORK})

    def _is_sealed(self) -> bool:
        """Tell whether there is a manifest of Podium's, be it a damaged one; other programs have files of that name."""
        try:
            with (self.path / MANIFEST).open("rb") as file:
                return b'"podium"' in file.read(64)
        except OSError:
            return False

    def damage(self) -> str | None:
        """Return what is wrong with the files that the manifest notes."""
        return first_damage(self.path, self.manifest) if self.manifest is not None else None

    def kept(self, number: int) -> "Here":
        """Return the place where it is kept."""
        return Here(self.name, self.path.with_name(f"{self.path.name}.{number}"), self.is_file)

    def move(self, to: "Here | There") -> None:
        """Rename it."""
        assert isinstance(to, Here)
        self.path.rename(to.path)

    def clear(self, *, everything: bool) -> None:
        """Remove what killed processes left beside it and, if asked, itself: in one step, so that no half is left."""
        remove_leftovers(self.path)
        old = self.path.with_name(f".{self.path.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        if not everything or not self.exists:
            return
        if self.is_file:
            self.path.unlink()
            return
        self.path.rename(old)
        shutil.rmtree(old)

    def claim(self, key: str) -> None:
        """Note whose work in progress it holds from now on; what is in progress is not complete."""
        (self.path / WORK).mkdir(parents=True, exist_ok=True)
        write_text(self.path / WORK / NOTE, key)
        (self.path / MANIFEST).unlink(missing_ok=True)

    def __str__(self) -> str:
        return str(self.path)


@dataclass(frozen=True)
class There:
    """An output behind a URI."""

    name: str
    uri: str
    is_file: bool
    siblings: "tuple[Here | There, ...]" = ()

    @cached_property
    def states(self) -> dict[str, remote.State]:
        """Size and checksum of every file, by its name below the URI."""
        return remote.states(self.uri)

    @property
    def exists(self) -> bool:
        """Tell whether there is something."""
        return bool(self.states)

    @cached_property
    def manifest(self) -> Manifest | None:
        """The manifest, where there is a sound one."""
        content = None if self.is_file else remote.read_bytes(f"{self.uri}/{MANIFEST}")
        try:
            return None if content is None else parse_manifest(content, f"{self.uri}/{MANIFEST}")
        except UserError:
            return None

    @cached_property
    def note(self) -> str | None:
        """The key of the task that is, or was, at work here."""
        content = remote.read_bytes(f"{self.uri}/{WORK}/{NOTE}")
        return None if content is None else content.decode(errors="replace")

    @property
    def has_checkpoints(self) -> bool:
        """Tell whether there is work in progress beyond the note and compiled programs."""
        apart = (f"{WORK}/{NOTE}", f"{WORK}/{COMPILED}/")
        return any(name.startswith(f"{WORK}/") and not name.startswith(apart) for name in self.states)

    @property
    def is_foreign(self) -> bool:
        """Tell whether there are files that no stage wrote."""
        if not self.exists:
            return False
        if self.is_file:
            return not _is_known(self.name, self.siblings)
        content = remote.read_bytes(f"{self.uri}/{MANIFEST}")
        return self.note is None and b'"podium"' not in (content or b"")[:64]

    def damage(self) -> str | None:
        """Compare sizes and the store's checksums with those noted; a file without a checksum is read."""
        if self.manifest is None:
            return None
        for name, entry in self.manifest.files.items():
            state, noted = self.states.get(name), self.manifest.stored.get(name)
            if state is None:
                return f"{self.uri}/{name} is missing"
            if state.size != entry["size"]:
                return f"{self.uri}/{name} has {state.size} bytes instead of {entry['size']}"
            sound = state.checksum == noted if noted and state.checksum else False
            if not sound and remote.digest(f"{self.uri}/{name}") != entry["sha256"]:
                return f"{self.uri}/{name} has another content than {MANIFEST} notes (sha256)"
        return None

    def kept(self, number: int) -> "There":
        """Return the place where it is kept."""
        return There(self.name, f"{self.uri}.{number}", self.is_file)

    def move(self, to: "Here | There") -> None:
        """Copy it there and remove it here: object stores know no renaming."""
        assert isinstance(to, There)
        remote.move(self.uri, to.uri)

    def clear(self, *, everything: bool) -> None:
        """Remove it, if asked."""
        if everything and self.exists:
            remote.remove(self.uri)

    def claim(self, key: str) -> None:
        """Note whose work in progress it holds from now on; what is in progress is not complete."""
        remote.write_bytes(f"{self.uri}/{WORK}/{NOTE}", key.encode())
        remote.remove(f"{self.uri}/{MANIFEST}")

    def __str__(self) -> str:
        return self.uri


Output = Here | There


def look(io: StageIO, names: Sequence[str], files: frozenset[str]) -> list[Output]:
    """Return the outputs of a command as they are found, without touching anything."""
    folders = tuple(_look(io, name) for name in names if name not in files)
    return [_look(io, name, folders) for name in names if name in files] + list(folders)


def _look(io: StageIO, name: str, folders: tuple[Output, ...] | None = None) -> Output:
    place, is_file = io.place(name), folders is not None
    if remote.is_remote(place):
        return There(name, place.rstrip("/"), is_file, folders or ())
    return Here(name, target(place), is_file, folders or ())


def _is_known(name: str, siblings: Sequence[Output]) -> bool:
    """Tell whether an output that is one file comes from the stage that wrote the folders beside it."""
    return any(
        folder.note is not None or (folder.manifest is not None and name in folder.manifest.siblings)
        for folder in siblings
    )
