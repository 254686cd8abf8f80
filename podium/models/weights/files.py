"""The safetensors files of a folder: which tensor is where, checked before anything is read."""

import hashlib
import json
import math
import struct
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from podium.errors import UserError
from podium.models.weights.json_file import read_json

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
_DTYPES = ("F32", "F16", "BF16")
# Of a number of each of the types that safetensors names.
_BITS = {
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 64),
    **dict.fromkeys(("F32", "I32", "U32"), 32),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 16),
    **dict.fromkeys(("BOOL", "I8", "U8", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    "F4": 4,
}
_REFETCH = "fetch the file again"


class TensorFiles:
    """Tensors of one checkpoint by name. Opening it reads headers only and checks them against the file sizes."""

    def __init__(self, paths: Iterable[Path], listed: Mapping[Path, set[str]] | None = None):
        self.paths = sorted(paths)
        self.headers = {path: read_header(path) for path in self.paths}
        self.where = {name: path for path, header in self.headers.items() for name in header}
        # Of a tensor in several shards the index says which one counts.
        for path, names in (listed or {}).items():
            for name in sorted(names - self.headers[path].keys()):
                raise UserError(f"{path}: tensor {name} is missing, though the index lists it; {_REFETCH}")
            self.where |= dict.fromkeys(names, path)

    @classmethod
    def of_folder(cls, folder: Path) -> "TensorFiles":
        """Open model.safetensors, or the shards that model.safetensors.index.json lists."""
        if (folder / INDEX).is_file():
            listed = read_index(folder / INDEX)
            return cls(listed, listed)
        if (folder / SINGLE).is_file():
            return cls([folder / SINGLE])
        raise UserError(f"{folder}: has no {SINGLE} and no {INDEX}; {_hint(folder)}")

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self.headers[self.where[name]][name]["shape"])

    def check(self, expected: dict[str, tuple[int, ...]]) -> None:
        """Raise UserError for the first tensor that is absent, of another shape, or quantized."""
        for name, shape in expected.items():
            if name not in self.where:
                raise UserError(f"{self.paths[0]}: tensor {name} is missing; config.json asks for it, {_REFETCH}")
            if self.shape(name) != shape:
                raise UserError(
                    f"{self.where[name]}: tensor {name} has shape {list(self.shape(name))}, config.json makes it "
                    f"{list(shape)}; the two files do not belong together"
                )
            dtype = self.headers[self.where[name]][name]["dtype"]
            if dtype not in _DTYPES:
                raise UserError(f"{self.where[name]}: tensor {name} has dtype {dtype}; use one of {', '.join(_DTYPES)}")

    def read(self, name: str, part: tuple[slice, ...]) -> np.ndarray:
        """Read a slice of one tensor as float32. Raises UserError when it holds NaN or infinity."""
        path = self.where[name]
        # Opened per read and closed after it: mapped pages would count as memory for as long as the file is open.
        with _open(path) as file:
            values = np.asarray(file.get_slice(name)[part]).astype(np.float32, copy=False)
        # Two reductions without a temporary array; NaN passes through both.
        if values.size and not (np.isfinite(values.min()) and np.isfinite(values.max())):
            raise self.not_finite(name)
        return values

    def not_finite(self, name: str) -> UserError:
        """Give the error for a tensor that holds NaN or infinity."""
        where = self.where[name]
        return UserError(f"{where}: tensor {name} holds NaN or infinity; use weights from before the run diverged")

    def offsets(self, path: Path) -> list[tuple[str, int, int]]:
        """List the tensors of a file as they lie in it: name, and where its bytes begin and end."""
        with path.open("rb") as raw:
            start = 8 + int(struct.unpack("<Q", raw.read(8))[0])
        bounds = {name: entry["data_offsets"] for name, entry in self.headers[path].items()}
        ordered = sorted(bounds, key=lambda name: (bounds[name], name))
        return [(name, start + bounds[name][0], start + bounds[name][1]) for name in ordered]


def read_index(path: Path) -> dict[Path, set[str]]:
    """Read which shard of its folder holds which tensors; raises UserError where one is no file's name."""
    weight_map = read_json(path).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise UserError(f"{path}: has no weight_map; {_REFETCH}")
    result: dict[Path, set[str]] = {}
    for name, file in weight_map.items():
        if not isinstance(file, str) or Path(file).name != file:
            raise UserError(f"{path}: tensor {name} is in {file!r}, which is no file of this folder; {_REFETCH}")
        result.setdefault(path.parent / file, set()).add(name)
    return dict(sorted(result.items()))


def _hint(folder: Path) -> str:
    legacy = sorted(path for pattern in ("*.bin", "*.pt", "*.pth", "*.gguf") for path in folder.glob(pattern))
    if not legacy:
        return "write the path of a model folder"
    source = legacy[0] if legacy[0].suffix == ".gguf" else folder
    return f"convert {legacy[0].name} first: `podium import-weights {source} NEW_FOLDER`"


@contextmanager
def _open(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, framework="np") as file:
            yield file
    except SafetensorError as error:
        reason = _fault(path) or error
        raise UserError(f"{path}: not a readable safetensors file ({reason}); {_REFETCH}") from None


def _fault(path: Path) -> str | None:
    """Say which tensor of a refused file is at fault, as far as its header can be read: the library does not always."""
    present = path.stat().st_size
    with path.open("rb") as raw:
        try:
            (size,) = struct.unpack("<Q", raw.read(8))
            header = json.loads(raw.read(min(size, present)))
            header.pop("__metadata__", None)
            ends = []
            for name, tensor in header.items():
                if not _is_whole(tensor):
                    return f"dtype, shape and data_offsets of tensor {name} do not go together"
                ends.append((8 + size + tensor["data_offsets"][1], name))
        except (ValueError, AttributeError, RecursionError, struct.error):
            return None
    cut = min(((end, name) for end, name in ends if end > present), default=None)
    return cut and f"it ends within tensor {cut[1]}: {present} of {max(ends)[0]} bytes"


def _is_whole(tensor: Any) -> bool:
    try:
        begin, end = tensor["data_offsets"]
        return bool(8 * (end - begin) == math.prod(tensor["shape"]) * _BITS[tensor["dtype"]])
    except (KeyError, TypeError, ValueError):
        return False


def read_header(path: Path) -> dict[str, dict[str, Any]]:
    """Read names, dtypes, shapes and offsets; raises UserError for a file that is absent, truncated or corrupt."""
    if not path.is_file():
        raise UserError(f"{path}: no such file, though the index lists it; {_REFETCH}")
    # The library checks offsets against shapes and against the size of the file.
    with _open(path), path.open("rb") as raw:
        (size,) = struct.unpack("<Q", raw.read(8))
        header: dict[str, dict[str, Any]] = json.loads(raw.read(size))
    header.pop("__metadata__", None)
    return header


_WHOLE = 2**20  # bytes of a tensor that are hashed whole; of a larger one 16 pieces of a sixteenth of it are


def fingerprint(files: TensorFiles, config_path: Path) -> str:
    """Hash config.json, all headers, and every tensor: whole up to 1 MiB, above that 16 evenly spread 64 KiB pieces.

    It tells weights of another training step apart at a bounded cost per tensor; it is no proof against forgery.
    """
    digest = hashlib.sha256(config_path.read_bytes())
    for path in files.paths:
        header = files.headers[path]
        digest.update(json.dumps([path.name, header], sort_keys=True).encode())
        with path.open("rb") as raw:
            start = 8 + struct.unpack("<Q", raw.read(8))[0]
            for name in sorted(header):
                begin, end = header[name]["data_offsets"]
                for offset, length in pieces(end - begin):
                    raw.seek(start + begin + offset)
                    digest.update(raw.read(length))
    return digest.hexdigest()


def pieces(size: int) -> list[tuple[int, int]]:
    """Return offset and length of the pieces of a tensor that stand for it, in bytes."""
    if size <= _WHOLE:
        return [(0, size)]
    length = _WHOLE // 16
    return [((size - length) * piece // 15, length) for piece in range(16)]
