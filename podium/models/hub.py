"""Find the folder that a model's name means: a path, a gs:// or s3:// URI, or a name on the Hugging Face Hub."""

import fnmatch
import hashlib
import os
import re
from pathlib import Path
from typing import Any

from podium.config import paths
from podium.errors import UserError, expanded, install
from podium.models.weights.digests import READ, SUMS, verify
from podium.storage.remote import IN_MEMORY

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
# Everything but weights of other formats, which may be pickles and are never read.
_PATTERNS = (*READ, SUMS)


def find_folder(name: str, revision: str | None, *, weights: bool = True) -> Path:
    """Give the local folder of a model; one from a URI or the Hub is copied here once, without `weights` all but those.

    Where it holds a SHA256SUMS and weights are wanted, the files named there are hashed. Raises UserError when there is
    no such folder, none can be fetched, or a digest differs.
    """
    folder = _find(name, revision, _PATTERNS if weights else tuple(set(_PATTERNS) - {"*.safetensors"}))
    if weights:
        verify(folder)
    return folder


def _find(name: str, revision: str | None, patterns: tuple[str, ...]) -> Path:
    if "://" in name:
        return _copy(name, patterns)
    path = expanded(name)
    if path.is_dir():
        return path
    if path.is_file():
        raise UserError(f"{name}: is a file; write a model folder (`podium import-weights` makes one of a .gguf file)")
    if path.is_absolute() or name.startswith((".", "~")) or not _HUB_NAME.fullmatch(name):
        raise UserError(f"{name}: no such model folder; write the path of a folder with config.json and safetensors")
    return _fetch(name, revision, patterns)


def _fetch(name: str, revision: str | None, patterns: tuple[str, ...]) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=sorted(patterns)))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"model {name!r}: no such folder here, and it cannot be fetched from the Hugging Face Hub ({reason}); "
            "write the path of a model folder"
        ) from None


def _copy(uri: str, patterns: tuple[str, ...]) -> Path:
    """Copy a folder from object storage to the cache, under a name that changes with the folder's files."""
    import fsspec

    from podium.storage.staging import staged

    if fault := paths.address_fault(uri, also=(IN_MEMORY,)):
        raise UserError(f"{uri}: {fault}")
    try:
        files, root = fsspec.core.url_to_fs(uri)
        result: dict[str, dict[str, Any]] = files.find(root, detail=True)
        wanted = {
            path.removeprefix(root).lstrip("/"): info
            for path, info in result.items()
            if any(fnmatch.fnmatch(path.rpartition("/")[2], pattern) for pattern in patterns)
        }
        if "config.json" not in wanted and "adapter_config.json" not in wanted:
            raise UserError(f"{uri}: no model folder there (it has no config.json); write the URI of one")
        states = sorted((name, info["size"], _version(info)) for name, info in wanted.items())
        key = hashlib.sha256(repr((uri, states)).encode()).hexdigest()[:32]
        target = _cache() / key
        if not target.is_dir():
            with staged(target) as temporary:
                for name in wanted:
                    (temporary / name).parent.mkdir(parents=True, exist_ok=True)
                    files.get_file(f"{root}/{name}", str(temporary / name))
        return target
    except ImportError as error:
        raise UserError(f"{uri}: {error}; write: {install('cloud')}") from None
    except (OSError, ValueError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"{uri}: cannot be fetched ({reason}); write the path or URI of a model folder") from None


def _version(info: dict[str, Any]) -> str:
    """Give what changes when an object is written again; each store names it in its own way."""
    return str(next((info[key] for key in ("etag", "ETag", "generation", "mtime", "created") if key in info), ""))


def _cache() -> Path:
    return Path(os.environ.get("PODIUM_CACHE") or expanded("~") / ".cache" / "podium") / "models"
