"""Write safetensors one tensor at a time, so that memory holds one tensor and not the checkpoint."""

import json
import math
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import ml_dtypes
import numpy as np

from podium.errors import UserError
from podium.models.weights.files import INDEX, SINGLE
from podium.models.weights.layout import Leaf, Tree, tree_get
from podium.parallel import distributed, placement

DTYPES: Mapping[str, tuple[str, np.dtype]] = {
    "float32": ("F32", np.dtype(np.float32)),
    "bfloat16": ("BF16", np.dtype(ml_dtypes.bfloat16)),
    "float16": ("F16", np.dtype(np.float16)),
}
MAX_SHARD_BYTES = 5 * 10**9  # the size that the Hugging Face Hub's own tools cut checkpoints into


@dataclass(frozen=True)
class Tensor:
    """A tensor to be written; `read` gives its values and is called once, when its turn comes.

    dtype: the type it is stored in, where it has one of its own; None is that of the file.
    """

    name: str
    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]
    dtype: str | None = None


def tree_tensors(tree: Tree, leaves: Sequence[Leaf]) -> list[Tensor]:
    """List a tree's tensors under their names in a file."""
    return [
        Tensor(leaf.name(layer), leaf.file_shape, partial(_read_leaf, tree, leaf, layer))
        for leaf in leaves
        for layer in range(max(leaf.layers, 1))
    ]


def _read_leaf(tree: Tree, leaf: Leaf, layer: int) -> np.ndarray:
    array = tree_get(tree, leaf.path)
    return leaf.to_file(placement.fetch(array[layer] if leaf.layers else array))


def write_safetensors(path: Path, tensors: Sequence[Tensor], dtype: str = "float32") -> None:
    """Write one file: length of the header, header, values (github.com/huggingface/safetensors, "Format").

    Of a run of several processes the first alone writes; the others read with it, because they hold parts. Raises
    UserError for a number that the stored type cannot hold: it would become an infinity.
    """
    if not distributed.is_leader():
        for tensor in tensors:
            tensor.read()
        return
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for tensor in tensors:
        code, size = _dtype(tensor.dtype or dtype)[0], _size(tensor, dtype)
        header[tensor.name] = {"dtype": code, "shape": list(tensor.shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for tensor in tensors:
            values = tensor.read()
            assert values.shape == tensor.shape, (tensor.name, values.shape, tensor.shape)
            # Viewed as bytes, because bfloat16 is no type that Python's buffers know.
            file.write(np.ascontiguousarray(_stored(tensor, values, dtype)).reshape(-1).view(np.uint8).data)


def _stored(tensor: Tensor, values: np.ndarray, dtype: str) -> np.ndarray:
    name = tensor.dtype or dtype
    kind = _dtype(name)[1]
    if values.dtype == kind:
        return values
    limit = float(ml_dtypes.finfo(kind).max)
    if values.size and not (-limit <= values.min() and values.max() <= limit):
        raise UserError(
            f"tensor {tensor.name} holds NaN or a number beyond {limit:g}, the largest of {name}; write another dtype"
        )
    return values.astype(kind)


def write_checkpoint(
    folder: Path, tensors: Sequence[Tensor], dtype: str = "float32", max_shard_bytes: int = MAX_SHARD_BYTES
) -> None:
    """Write model.safetensors, or shards of at most `max_shard_bytes` (or one tensor) with their index."""
    shards: list[list[Tensor]] = [[]]
    filled = 0
    for tensor in tensors:
        size = _size(tensor, dtype)
        if shards[-1] and filled + size > max_shard_bytes:
            shards.append([])
            filled = 0
        shards[-1].append(tensor)
        filled += size
    if len(shards) == 1:
        write_safetensors(folder / SINGLE, tensors, dtype)
        return
    write_shards(folder, shards, len(shards), dtype)


def write_shards(folder: Path, shards: Iterable[Sequence[Tensor]], count: int, dtype: str = "float32") -> None:
    """Write one file per shard, `count` in all, and their index; each shard is let go before the next is asked for."""
    weight_map: dict[str, str] = {}
    total = 0
    left = iter(shards)
    for number in range(1, count + 1):
        # Not by zip or enumerate, which hold the last shard while they ask for the next.
        shard = next(left)
        name = f"model-{number:05d}-of-{count:05d}.safetensors"
        write_safetensors(folder / name, shard, dtype)
        weight_map |= dict.fromkeys((tensor.name for tensor in shard), name)
        total += sum(_size(tensor, dtype) for tensor in shard)
        del shard
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _size(tensor: Tensor, dtype: str) -> int:
    return math.prod(tensor.shape) * _dtype(tensor.dtype or dtype)[1].itemsize


def _dtype(name: str) -> tuple[str, np.dtype]:
    if name not in DTYPES:
        raise UserError(f"dtype {name!r} cannot be written; write one of {', '.join(DTYPES)}")
    return DTYPES[name]
