"""Read files into stacked trees: on one device, or slice by slice into a mesh's sharding."""

import math
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from podium.errors import UserError
from podium.models.config import EncoderDecoderConfig, NetworkConfig
from podium.models.families.names import LM_HEAD, SCORE
from podium.models.families.registry import names_of
from podium.models.family import abstract_params, parameter_axes
from podium.models.lora import LoraSpec
from podium.models.weights.files import TensorFiles
from podium.models.weights.layout import Leaf, Slices, Tree, adapter_leaves, file_shapes, leaves, tree_from, tree_get
from podium.models.weights.together import check_alone, read_together
from podium.parallel import distributed
from podium.parallel.sharding import tree_shardings

_TABLE = ("embedder", "table")
_CHECKED_ROWS = 4096  # of a table that is compared with another: a host holds no more of it


def settle_head(files: TensorFiles, config: NetworkConfig) -> NetworkConfig:
    """Decide by the weights whether the head is tied, where config.json leaves it to them as T5's does.

    A head of its own is one unless it is tied by config.json and equal to the embedding.
    """
    if not isinstance(config, EncoderDecoderConfig) or config.encoder_only:
        return config
    stored = LM_HEAD in files.where
    return config.replace(tie_embeddings=not stored or (config.tie_embeddings and _copies(files, config, LM_HEAD)))


def read_params(files: TensorFiles, config: NetworkConfig, mesh: Mesh | None = None) -> Tree:
    """Read all parameters as float32. With a mesh each device gets its slice and no host the whole."""
    _refuse_leftovers(files, config)
    shardings = None
    if mesh is not None:
        shardings = tree_shardings(mesh, parameter_axes(config)[0], abstract_params(config)[0])
    return _read_tree(files, config, leaves(config), shardings, mesh)


def read_adapter(files: TensorFiles, config: NetworkConfig, lora: LoraSpec, mesh: Mesh | None = None) -> Tree:
    """Read an adapter in PEFT's names and order."""
    shardings = None
    if mesh is not None:
        shardings = tree_shardings(mesh, parameter_axes(config, lora)[1], abstract_params(config, lora)[1])
    return _read_tree(files, config, adapter_leaves(config, lora), shardings, mesh)


def _read_tree(
    files: TensorFiles, config: NetworkConfig, leaves: Sequence[Leaf], shardings: Tree | None, mesh: Mesh | None
) -> Tree:
    shapes = file_shapes(leaves)
    names = {name: _stored(files, config, name) for name in shapes}
    files.check({names[name]: shape for name, shape in shapes.items()})
    if distributed.count() > 1:
        if mesh is not None:
            return read_together(files, leaves, names, shardings, mesh)
        check_alone(files)
    result = []
    # The largest first: the copies that a transfer needs then fall into the time when least is held.
    for leaf in sorted(leaves, key=lambda leaf: -max(leaf.layers, 1) * math.prod(leaf.shape)):
        shape = (leaf.layers, *leaf.shape) if leaf.layers else leaf.shape
        read = _reader(files, leaf, names)
        if shardings is None:
            array = jnp.asarray(read(tuple(slice(0, size) for size in shape)))
        else:
            array = jax.make_array_from_callback(shape, tree_get(shardings, leaf.path), read)
        result.append((leaf.path, array))
    return tree_from(result)


def _stored(files: TensorFiles, config: NetworkConfig, name: str) -> str:
    """Give the name under which these files hold a tensor."""
    return next((alias for alias in names_of(config).aliases(name) if alias in files.where), name)


def _reader(files: TensorFiles, leaf: Leaf, names: Mapping[str, str]) -> Callable[[Slices | None], np.ndarray]:
    def one(layer: int, part: Slices) -> np.ndarray:
        wide = leaf.readable(part)
        values = leaf.from_file(files.read(names[leaf.name(layer)], leaf.file_slices(wide)), wide)
        return values[tuple(slice(None) if cut == asked else asked for cut, asked in zip(wide, part, strict=True))]

    def read(part: Slices | None) -> np.ndarray:
        assert part is not None  # JAX's type allows it for arrays without dimensions
        if not leaf.layers:
            return np.ascontiguousarray(one(0, part))
        numbers = range(*part[0].indices(leaf.layers))
        sizes = [len(range(*cut.indices(size))) for cut, size in zip(part[1:], leaf.shape, strict=True)]
        stacked = np.empty((len(numbers), *sizes), np.float32)
        for row, layer in enumerate(numbers):
            stacked[row] = one(layer, part[1:])
        return stacked

    return read


def _refuse_leftovers(files: TensorFiles, config: NetworkConfig) -> None:
    """Raise UserError for a tensor the network has no place for: ignoring it would change the model."""
    names = names_of(config)
    tables = names.aliases(names.tensor(_TABLE))
    used = {_stored(files, config, name) for name in file_shapes(leaves(config))}
    heads = set(names.aliases(LM_HEAD)) if config.tie_embeddings else set()
    for name in files.where:
        if name in used or name == SCORE or names.is_left_out(name):
            continue
        if name not in heads and name not in tables:
            raise UserError(
                f"{files.where[name]}: tensor {name} belongs to no part of this network; "
                "config.json and the weights do not belong together, or this is another architecture"
            )
        if not _copies(files, config, name):
            instead = "write tie_word_embeddings: false" if name in heads else "fetch the file again"
            raise UserError(
                f"{files.where[name]}: tensor {name} differs from the embedding though config.json ties them; {instead}"
            )


def _copies(files: TensorFiles, config: NetworkConfig, name: str) -> bool:
    """Say whether a tensor repeats the embedding."""
    table = _stored(files, config, names_of(config).tensor(_TABLE))
    files.check({table: (config.vocab_size, config.embed)})
    if files.shape(name) != files.shape(table):
        return False
    for start in range(0, config.vocab_size, _CHECKED_ROWS):
        part = slice(start, min(start + _CHECKED_ROWS, config.vocab_size)), slice(0, config.embed)
        if not np.array_equal(files.read(name, part), files.read(table, part)):
            return False
    return True
