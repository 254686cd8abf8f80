"""Write safetensors one tensor at a time, so that memory holds one tensor and not the checkpoint."""

import json
import math
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import ml_dtypes
import numpy as np

from podium.errors import UserError
from podium.models.weights.files import INDEX, SINGLE
from podium.models.weights.layout import Leaf, Tree, tree_get

DTYPES: Mapping[str, tuple[str, np.dtype]] = {
    "float32": ("F32", np.dtype(np.float32)),
    "bfloat16": ("BF16", np.dtype(ml_dtypes.bfloat16)),
}
MAX_SHARD_BYTES = 5 * 10**9  # the size that the Hugging Face Hub's own tools cut checkpoints into


@dataclass(frozen=True)
class Tensor:
    """A tensor to be written; `read` gives its values and is called once, when its turn comes."""

    name: str
    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]


def tree_tensors(tree: Tree, leaves: Sequence[Leaf]) -> list[Tensor]:
    """List a tree's tensors under their names in a file."""
    return [
        Tensor(leaf.name(layer), leaf.file_shape, partial(_read_leaf, tree, leaf, layer))
        for leaf in leaves
        for layer in range(max(leaf.layers, 1))
    ]


def _read_leaf(tree: Tree, leaf: Leaf, layer: int) -> np.ndarray:
    array = tree_get(tree, leaf.path)
    return leaf.to_file(np.asarray(array[layer] if leaf.layers else array))


def write_safetensors(path: Path, tensors: Sequence[Tensor], dtype: str = "float32") -> None:
    """Write one file: length of the header, header, values (github.com/huggingface/safetensors, "Format")."""
    code, kind = _dtype(dtype)
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for tensor in tensors:
        size = math.prod(tensor.shape) * kind.itemsize
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
            file.write(np.ascontiguousarray(values.astype(kind, copy=False)).reshape(-1).view(np.uint8).data)


def write_checkpoint(
    folder: Path, tensors: Sequence[Tensor], dtype: str = "float32", max_shard_bytes: int = MAX_SHARD_BYTES
) -> None:
    """Write model.safetensors, or shards of at most `max_shard_bytes` (or one tensor) with their index."""
    itemsize = _dtype(dtype)[1].itemsize
    shards: list[list[Tensor]] = [[]]
    filled = 0
    for tensor in tensors:
        size = math.prod(tensor.shape) * itemsize
        if shards[-1] and filled + size > max_shard_bytes:
            shards.append([])
            filled = 0
        shards[-1].append(tensor)
        filled += size
    if len(shards) == 1:
        write_safetensors(folder / SINGLE, tensors, dtype)
        return
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        write_safetensors(folder / name, shard, dtype)
        weight_map |= {tensor.name: name for tensor in shard}
    total = sum(math.prod(tensor.shape) * itemsize for tensor in tensors)
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _dtype(name: str) -> tuple[str, np.dtype]:
    if name not in DTYPES:
        raise UserError(f"dtype {name!r} cannot be written; write one of {', '.join(DTYPES)}")
    return DTYPES[name]
