"""Where each leaf of the parameter tree lives in a Hugging Face checkpoint, and how its dimensions are ordered there.

Our kernels are [inputs..., outputs...] with heads and head_dim apart; theirs are matrices [outputs, inputs].
"""

import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import jax
import numpy as np

from podium.models.config import NetworkConfig
from podium.models.families.names import Path
from podium.models.families.registry import names_of
from podium.models.family import abstract_params
from podium.models.lora import LoraSpec

Tree = Any
Slices = tuple[slice, ...]
# On the host, or on devices.
Values = TypeVar("Values", np.ndarray, jax.Array)


@dataclass(frozen=True)
class Leaf:
    """One leaf of the tree: its path, its shape without the layers, and its dimensions as grouped in the file.

    tensor: the name in the file, with {} for the layer's number.
    order: per dimension of the file's tensor, the dimensions of the leaf that it flattens.
    layers: how many are stacked, 0 for a leaf that is not; first: the number in the file of the first of them.
    """

    path: Path
    tensor: str
    shape: tuple[int, ...]
    order: tuple[tuple[int, ...], ...]
    layers: int
    first: int = 0

    def name(self, layer: int) -> str:
        """Give the tensor's name for one of the stacked layers, counted from 0."""
        return self.tensor.format(self.first + layer)

    @property
    def file_shape(self) -> tuple[int, ...]:
        return tuple(math.prod(self.shape[dim] for dim in group) for group in self.order)

    def readable(self, part: Slices) -> Slices:
        """Widen a slice of the leaf to one that is a slice of the file's tensor, too."""
        behind = {dim for group in self.order for dim in group[1:]}
        return tuple(slice(0, size) if dim in behind else part[dim] for dim, size in enumerate(self.shape))

    def file_slices(self, part: Slices) -> Slices:
        """Translate a slice of the leaf to a slice of the file's tensor; only a group's first dimension may be cut."""
        result = []
        for group in self.order:
            first, *rest = group
            inner = math.prod(self.shape[dim] for dim in rest)
            assert all(part[dim].indices(self.shape[dim])[:2] == (0, self.shape[dim]) for dim in rest), self.path
            start, stop, _ = part[first].indices(self.shape[first])
            result.append(slice(start * inner, stop * inner))
        return tuple(result)

    def from_file(self, values: Values, part: Slices) -> Values:
        """Reorder values that `file_slices(part)` cut from the file to the leaf's dimensions."""
        sizes = [len(range(*cut.indices(size))) for cut, size in zip(part, self.shape, strict=True)]
        flat = [dim for group in self.order for dim in group]
        return values.reshape([sizes[dim] for dim in flat]).transpose(np.argsort(flat))

    def to_file(self, values: np.ndarray) -> np.ndarray:
        """Reorder one layer of the leaf to the file's tensor, contiguous."""
        flat = [dim for group in self.order for dim in group]
        return np.ascontiguousarray(values.transpose(flat).reshape(self.file_shape))


def _order(path: Path, ndim: int) -> tuple[tuple[int, ...], ...]:
    dims = tuple(range(ndim))
    if path[-1] == "table":
        return tuple((dim,) for dim in dims)
    # How many leading dimensions are contracted with the activations.
    inputs = {"kernel": 2 if "o_proj" in path else 1, "lora_a": ndim - 1, "lora_b": 1}.get(path[-1])
    return (dims,) if inputs is None else (dims[inputs:], dims[:inputs])


def _leaves(config: NetworkConfig, tree: Tree) -> tuple[Leaf, ...]:
    base, names = abstract_params(config)[0], names_of(config)
    result = []
    for path, array in tree_items(tree):
        layers, total, shape = 0, 0, array.shape
        if "blocks" in path:
            # Those that lack layers, as an adapter may, lack the lowest.
            (layers, *_), total, shape = array.shape, depth(base, path), array.shape[1:]
        order = _order(path, len(shape))
        result.append(Leaf(path, names.tensor(path), shape, order, layers, total - layers))
    return tuple(result)


def depth(tree: Tree, path: Path) -> int:
    """Count the layers of the stack that a path leads into."""
    blocks = tree_get(tree, path[: path.index("blocks") + 1])
    return int(jax.tree.leaves(blocks)[0].shape[0])


@functools.lru_cache(maxsize=64)
def leaves(config: NetworkConfig) -> tuple[Leaf, ...]:
    """List all leaves of a config's parameter tree."""
    return _leaves(config, abstract_params(config)[0])


@functools.lru_cache(maxsize=64)
def adapter_leaves(config: NetworkConfig, lora: LoraSpec) -> tuple[Leaf, ...]:
    """List all leaves of an adapter tree; in files they have PEFT's names and order."""
    return _leaves(config, abstract_params(config, lora)[1])


def file_shapes(leaves: Sequence[Leaf]) -> dict[str, tuple[int, ...]]:
    """Give name and shape of every tensor that a file of these leaves holds."""
    return {leaf.name(layer): leaf.file_shape for leaf in leaves for layer in range(max(leaf.layers, 1))}


def tree_items(tree: Tree) -> Iterator[tuple[Path, Any]]:
    """Walk a nested dict in a fixed order."""
    for path, value in jax.tree_util.tree_flatten_with_path(tree)[0]:
        yield tuple(key.key for key in path), value


def tree_get(tree: Tree, path: Path) -> Any:
    for part in path:
        tree = tree[part]
    return tree


def tree_from(items: Sequence[tuple[Path, Any]]) -> Tree:
    """Build a nested dict from (path, value) pairs."""
    root: Tree = {}
    for path, value in items:
        node = root
        for part in path[:-1]:
            node = node.setdefault(part, {})
        node[path[-1]] = value
    return root
