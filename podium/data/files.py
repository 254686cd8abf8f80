"""Find and open data files: on this machine or behind an address of a known store."""

from __future__ import annotations

import difflib
import os
import stat
from pathlib import Path
from typing import Any, NoReturn

from podium.config import paths
from podium.errors import UserError

# Endings of files that hold rows, in the order in which a folder's advice names them.
ENDINGS = (".parquet", ".jsonl", ".jsonl.gz", ".json", ".csv", ".tsv", ".arrow")


def expand(path: str) -> list[str]:
    """Return the files that a path with * or ? stands for, sorted; any other path is itself.

    Raises:
        UserError: No file fits, a name cannot be written as text, or the address is of no known store.
    """
    _check_address(path)
    if paths.is_remote(path):
        if not paths.is_pattern(path):
            return [path]
        result = _remote_matches(path)
    elif os.path.exists(paths.local(path)) or not paths.is_pattern(path):
        return [path]
    else:
        _check_path(path)
        result = paths.matches(path)
    if not result:
        raise UserError(f"{path}: no file fits this pattern; check the path{_closed_folder(path)}")
    for file in result:
        if not _is_text(file):
            raise UserError(f"{path}: the name of {os.fsencode(file)!r} is not UTF-8; rename that file")
    return result


def read_content(path: str) -> bytes:
    """Read a file, here or behind an address.

    Raises:
        UserError: It is not there, is no file, cannot be read, or the address is of no known store.
    """
    _check_address(path)
    if paths.is_remote(path):
        return _remote_content(path)
    _check_path(path)
    here = Path(paths.local(path))
    try:
        _check_kind(path, here)
        return here.read_bytes()
    except FileNotFoundError:
        _raise_missing(path, here)
    except MemoryError:
        raise UserError(f"{path}: does not fit into this machine's memory; split the file") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check the path and its permissions") from None


def _check_address(path: str) -> None:
    if fault := paths.address_fault(path):
        raise UserError(f"{path}: {fault}")


def _check_path(path: str) -> None:
    """Refuse what the operating system takes for no path at all, which Python reports as ValueError."""
    if "\0" in path or not _is_text(path):
        raise UserError(f"{path!r}: no path holds such characters; write the name of a file")


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _check_kind(path: str, here: Path) -> None:
    """Refuse what is no regular file: reading a pipe or a device may never end."""
    mode = here.stat().st_mode
    if stat.S_ISDIR(mode):
        raise UserError(f"{path}: is a folder; {_inside(here)}")
    if not stat.S_ISREG(mode):
        kinds = ((stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"), (lambda _: True, "a device"))
        kind = next(name for fits, name in kinds if fits(mode))
        raise UserError(f"{path}: is {kind}, not a file; write its rows to a file and name that")


def _inside(folder: Path) -> str:
    """Return the advice for a folder in place of a file."""
    names = [name.lower() for name in os.listdir(folder)]
    for ending in ENDINGS:
        if any(name.endswith(ending) for name in names):
            return f"name the files in it: {folder}/*{ending}"
    return "name a file in it"


def _raise_missing(path: str, here: Path) -> NoReturn:
    if here.is_symlink():
        raise UserError(f"{path}: is a link to {os.readlink(here)}, which is not there; fetch that file") from None
    try:
        names = os.listdir(here.parent)
    except OSError:
        names = []
    near = difflib.get_close_matches(here.name, names, n=1)
    advice = f"did you mean {here.parent / near[0]}?" if near else "check the path"
    raise UserError(f"{path}: no such file; {advice}") from None


def _closed_folder(path: str) -> str:
    """Return that a pattern's folder may not be listed, where that is why nothing fits."""
    folder = Path(paths.local(path)).parent
    while paths.is_pattern(str(folder)):
        folder = folder.parent
    try:
        if not paths.is_remote(path):
            os.listdir(folder)
    except OSError as error:
        return f": {folder} cannot be listed ({error.strerror})"
    return ""


def _remote_content(path: str) -> bytes:
    system = _filesystem(path)
    try:
        return bytes(system.cat_file(path))
    # Every storage client raises its own kinds of error: missing files, refused credentials, lost networks.
    except Exception as error:
        raise UserError(_unreachable(path, error)) from None


def _remote_matches(path: str) -> list[str]:
    system = _filesystem(path)
    try:
        entries = system.glob(paths.glob_pattern(path), detail=True)
    except Exception as error:
        raise UserError(_unreachable(path, error)) from None
    scheme = path.partition("://")[0]
    result = sorted(name for name, entry in entries.items() if entry["type"] == "file")
    return [f"{scheme}://{name.removeprefix('/')}" for name in result]


def _unreachable(path: str, error: Exception) -> str:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
    return f"{path}: cannot be read ({reason}); check the address and your credentials"


def _filesystem(path: str) -> Any:
    import fsspec

    try:
        return fsspec.core.url_to_fs(path)[0]
    except ImportError as error:
        raise UserError(f"{path}: no reader for this kind of address ({error}); pip install 'podium[cloud]'") from None
    except ValueError as error:
        raise UserError(f"{path}: {error}; write a path, gs://... or s3://...") from None
