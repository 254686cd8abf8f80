"""Copy artifacts from and to URIs, with fsspec; imported only where a URI is used."""

import atexit
import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

from podium.errors import UserError
from podium.storage.failures import is_full_disk

_EXTRAS = {"gs": "gcsfs", "gcs": "gcsfs", "s3": "s3fs"}


def is_remote(place: str | os.PathLike[str]) -> bool:
    """Tell whether a place is a URI that is not a local file's."""
    text = os.fspath(place)
    return "://" in text and not text.startswith("file://")


def local_path(place: str | os.PathLike[str]) -> Path:
    """Return a local place as an absolute path; file:// is taken off."""
    return Path(os.fspath(place).removeprefix("file://")).expanduser().absolute()


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


def upload_folder(source: Path, uri: str, name: str, files: Iterable[str], *, last: str) -> None:
    """Copy files of a folder, by their names in it, and then `last`, whose presence means that all of them are there.

    Raises:
        UserError: The URI cannot be written.
    """
    system, root = _open(uri)
    try:
        # Without its old mark, a folder that is half replaced is not taken for complete.
        if system.exists(f"{root}/{last}"):
            system.rm(f"{root}/{last}")
        for file in [*files, last]:
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


def version_of(uri: str) -> str:
    """Return what changes when the file at a URI does, without reading it.

    Raises:
        UserError: There is nothing at the URI, or it cannot be read.
    """
    system, path = _open(uri)
    try:
        return ",".join(str(system.ukey(file)) for file in (system.glob(path) if "*" in path else [path]))
    except Exception as error:
        raise _failed("file", path.rpartition("/")[2], uri, error) from error


def _open(uri: str) -> tuple[Any, str]:
    """Return the file system of a URI and the path in it."""
    import fsspec

    scheme = uri.partition("://")[0]
    try:
        system, path = fsspec.core.url_to_fs(uri)
    except ImportError as error:
        package = _EXTRAS.get(scheme, scheme)
        raise UserError(f"{uri}: needs {package}; write: pip install 'podium[cloud]'") from error
    except ValueError as error:
        raise UserError(f"{uri}: {scheme}:// is not known; write a path, gs://... or s3://...") from error
    return system, path.rstrip("/")


def _failed(kind: str, name: str, uri: str, error: Exception) -> Exception:
    """Return the user's error for whatever a storage client raised: each has exceptions of its own."""
    if is_full_disk(error):
        return UserError(f"{kind} {name}: no space left on this machine for {uri}; free some")
    if isinstance(error, FileNotFoundError):
        return UserError(f"{kind} {name}: there is nothing at {uri}; check the name")
    reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
    return UserError(
        f"{kind} {name}: {uri} cannot be reached ({type(error).__name__}: {reason}); check name and access"
    )
