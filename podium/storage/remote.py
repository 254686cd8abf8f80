"""Copy artifacts from and to URIs, with fsspec; imported only where a URI is used."""

import atexit
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from podium.config import paths
from podium.errors import UserError, expanded, install, why_full
from podium.storage.digests import value_digest

_FILE = "file://"
_PIECE = 1 << 20
# A store in this process, for what a notebook or a test keeps nowhere else.
IN_MEMORY = "memory"
# In the order of how surely they are of the contents alone.
_CHECKSUMS = ("crc32c", "md5Hash", "ETag", "etag")
_EXTRAS = {"gs": "gcsfs", "gcs": "gcsfs", "s3": "s3fs"}
# Amazon's own service: its clients know the endpoint of a region.
_AWS = (".amazonaws.com", ".amazonaws.com.cn")
# What tells one writing of a file from another where the store keeps no checksum.
_WRITINGS = ("generation", "blob_id", "mtime", "LastModified", "last_modified", "updated", "created")


class Unreachable(UserError):
    """A place that cannot be looked at from this machine, though it may be there for another."""


def is_remote(place: str | os.PathLike[str]) -> bool:
    """Tell whether a place is a URI that is not a local file's."""
    text = os.fspath(place)
    return "://" in text and not text.lower().startswith(_FILE)


def local_path(place: str | os.PathLike[str]) -> Path:
    """Return a local place as an absolute path; file:// is taken off.

    Raises:
        UserError: It begins with ~ and there is no such home folder.
    """
    text = os.fspath(place)
    if text.lower().startswith(_FILE):
        text = text[len(_FILE) :]
    return expanded(text).absolute()


def scratch(prefix: str) -> Path:
    """Return a new local folder for what is copied; it is removed when the process ends."""
    folder = tempfile.mkdtemp(prefix=f"podium-{prefix}-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def download(uri: str, name: str) -> Path:
    """Copy a file or folder to this machine; return where it is.

    Raises:
        UserError: There is nothing at the URI, it cannot be read, or the disk here is full.
    """
    system, root = _open(uri)
    target = scratch(name) / (PurePosixPath(root).name or name)
    try:
        files = system.find(root)
        if not files:
            raise UserError(f"input {name}: there is nothing at {uri}; name what the earlier stage wrote")
        for file in files:
            relative = PurePosixPath(file).relative_to(root) if file != root else PurePosixPath()
            here = target / relative
            here.parent.mkdir(parents=True, exist_ok=True)
            system.get_file(file, str(here))
    except UserError:
        raise
    except Exception as error:
        raise _failed("input", name, uri, error) from error
    return target


def fetch_file(uri: str, path: Path) -> None:
    """Copy a file to a path of this machine, so that a kill leaves all of it or what was there.

    Raises:
        UserError: There is nothing at the URI, it cannot be read, or the disk here is full.
    """
    system, source = _open(uri)
    scratch = path.with_name(f"{path.name}.part")
    try:
        system.get_file(source, str(scratch))
        scratch.replace(path)
    except Exception as error:
        raise _failed("file", path.name, uri, error) from error


def upload_file(source: Path, uri: str, name: str) -> None:
    """Copy a file to a URI.

    Raises:
        UserError: The URI cannot be written.
    """
    system, root = _open(uri)
    try:
        system.put_file(str(source), root)
    except Exception as error:
        raise _failed("output", name, uri, error) from error


def upload_folder(source: Path, uri: str, name: str, files: Iterable[str]) -> None:
    """Copy files of a folder, by their names in it.

    Raises:
        UserError: The URI cannot be written.
    """
    system, root = _open(uri)
    try:
        for file in files:
            target = f"{root}/{file}"
            system.makedirs(target.rpartition("/")[0], exist_ok=True)
            system.put_file(str(source / file), target)
    except Exception as error:
        raise _failed("output", name, uri, error) from error


def read_bytes(uri: str) -> bytes | None:
    """Return the bytes of a file, or None where there is none."""
    system, path = _open(uri)
    try:
        return bytes(system.cat_file(path))
    except FileNotFoundError:
        return None
    except Exception as error:
        raise _failed("file", path.rpartition("/")[2], uri, error) from error


def write_bytes(uri: str, content: bytes) -> None:
    """Write a file.

    Raises:
        UserError: The URI cannot be written.
    """
    system, path = _open(uri)
    try:
        system.makedirs(path.rpartition("/")[0], exist_ok=True)
        system.pipe_file(path, content)
    except Exception as error:
        raise _failed("file", path.rpartition("/")[2], uri, error) from error


def digest(uri: str) -> str:
    """Return the SHA-256 of a file, which is read for it in pieces.

    Raises:
        UserError: It cannot be read.
    """
    system, path = _open(uri)
    try:
        result = hashlib.sha256()
        with system.open(path, "rb") as file:
            while piece := file.read(_PIECE):
                result.update(piece)
        return result.hexdigest()
    except Exception as error:
        raise _failed("file", path.rpartition("/")[2], uri, error) from error


class State(NamedTuple):
    """Size of a file in bytes, and the checksum that its store keeps of the contents, with its kind; "" is none."""

    size: int
    checksum: str


def states(uri: str) -> dict[str, State]:
    """Return the state of every file at or below a URI, by its name below it; none where there is nothing.

    Raises:
        UserError: The store cannot be reached.
    """
    system, root = _open(uri)
    try:
        system.invalidate_cache()
        # Of a single file, some stores' `find` says no more than its name.
        result = {path: info or system.info(path) for path, info in system.find(root, detail=True).items()}
        return {
            path.removeprefix(root).lstrip("/"): State(int(info["size"] or 0), _checksum(info))
            for path, info in result.items()
        }
    except FileNotFoundError:
        return {}
    except Exception as error:
        raise _failed("folder", root.rpartition("/")[2], uri, error) from error


def move(uri: str, to: str) -> None:
    """Move a file or everything below a URI to another URI of the same store.

    Raises:
        UserError: The URI cannot be written.
    """
    (system, root), (_, target) = _open(uri), _open(to)
    try:
        # fsspec's own mv guesses from what is there whether a target means a name or a folder to put it in.
        for path in system.find(root):
            there = target + path[len(root) :]
            system.makedirs(there.rpartition("/")[0], exist_ok=True)
            system.cp_file(path, there)
        system.rm(root, recursive=True)
    except Exception as error:
        raise _failed("output", root.rpartition("/")[2], to, error) from error


def remove(uri: str) -> None:
    """Remove a file, or everything below a URI, where there is something.

    Raises:
        UserError: The URI cannot be written.
    """
    system, root = _open(uri)
    try:
        # Others write there, too.
        system.invalidate_cache()
        if system.exists(root):
            system.rm(root, recursive=True)
    except Exception as error:
        raise _failed("output", root.rpartition("/")[2], uri, error) from error


def s3_service(uri: str) -> dict[str, str]:
    """Return where the client of an s3:// URI turns to, as TensorStore names it: `endpoint` and `aws_region`.

    Both are absent where that is Amazon: TensorStore then asks the bucket where it is.

    Raises:
        UserError: There is no client for it.
    """
    system, _ = _open(uri)
    told = system.s3.meta
    if (urlsplit(told.endpoint_url).hostname or "").endswith(_AWS):
        return {}
    return {"endpoint": told.endpoint_url, "aws_region": told.region_name or "us-east-1"}


def _checksum(info: Mapping[str, Any]) -> str:
    """Return what a store says of the contents of a file: of Google's, the etag changes with a label too."""
    name = next((name for name in _CHECKSUMS if info.get(name)), None)
    return "" if name is None else f"{name} {info[name]}"


def version_of(uri: str, patterns: Sequence[str] = ("*",)) -> str:
    """Return what changes when a file, the files of a folder or those that a pattern with * stands for do.

    `patterns` are the names that count in a folder. Nothing is read where the store tells checksum, generation or time
    of its files; elsewhere their contents are.

    Raises:
        UserError: There is nothing at the URI; `Unreachable` where that cannot be known from here.
    """
    system, path = _open(uri)
    try:
        # Another look than an earlier one of this process.
        system.invalidate_cache()
        if paths.is_pattern(path):
            result = system.glob(paths.glob_pattern(path), detail=True)
        else:
            result = system.find(path, detail=True)
        states = [
            [name, info.get("size"), _mark(system, name, info)]
            for name, info in sorted(result.items())
            if info.get("type") != "directory" and any(fnmatch(name.rpartition("/")[2], one) for one in patterns)
        ]
        if not states:
            raise FileNotFoundError(path)
        return value_digest(states)
    except Exception as error:
        raise _failed("file", path.rpartition("/")[2], uri, error) from error


def _mark(system: Any, path: str, info: Mapping[str, Any]) -> str:
    """Return what a store says of the content of a file, else of when it was written, else the content's SHA-256."""
    known = [_checksum(info), *(str(info[name]) for name in _WRITINGS if info.get(name) is not None)]
    return next(filter(None, known), "") or hashlib.sha256(system.cat_file(path)).hexdigest()


def _open(uri: str) -> tuple[Any, str]:
    """Return the file system of a URI and the path in it."""
    import fsspec

    scheme = uri.partition("://")[0]
    if fault := paths.address_fault(uri, also=(IN_MEMORY,)):
        raise UserError(f"{uri}: {fault}")
    try:
        system, path = fsspec.core.url_to_fs(uri)
    except ImportError as error:
        package = _EXTRAS.get(scheme, scheme)
        raise Unreachable(f"{uri}: needs {package}; write: {install('cloud')}") from error
    except ValueError as error:
        raise UserError(f"{uri}: {scheme}:// is not known; write a path, gs://... or s3://...") from error
    return system, path.rstrip("/")


def _failed(kind: str, name: str, uri: str, error: Exception) -> Exception:
    """Return the user's error for whatever a storage client raised: each has exceptions of its own."""
    if reason := why_full(error):
        return UserError(f"{kind} {name}: {uri}: here, {reason}")
    if isinstance(error, FileNotFoundError):
        return UserError(f"{kind} {name}: there is nothing at {uri}; check the name")
    reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
    return Unreachable(
        f"{kind} {name}: {uri} cannot be reached ({type(error).__name__}: {reason}); check name and access"
    )
