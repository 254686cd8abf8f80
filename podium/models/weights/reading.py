"""Read files into stacked trees: on one device, or slice by slice into a mesh's sharding."""

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from podium.errors import UserError
from podium.models.config import TransformerConfig
from podium.models.lora import LoraSpec
from podium.models.transformer import abstract_params, parameter_axes
from podium.models.weights.files import TensorFiles
from podium.models.weights.layout import Leaf, Slices, Tree, adapter_leaves, file_shapes, leaves, tree_from, tree_get
from podium.parallel.sharding import tree_shardings

SCORE = "score.weight"  # the head of a sequence classifier
_LM_HEAD = "lm_head.weight"


def read_params(files: TensorFiles, config: TransformerConfig, mesh: Mesh | None = None) -> Tree:
    """Read all parameters as float32. With a mesh each device gets its slice and no host the whole."""
    _refuse_leftovers(files, config)
    shardings = None
    if mesh is not None:
        shardings = tree_shardings(mesh, parameter_axes(config)[0], abstract_params(config)[0])
    return _read_tree(files, leaves(config), shardings)


def read_adapter(files: TensorFiles, config: TransformerConfig, lora: LoraSpec, mesh: Mesh | None = None) -> Tree:
    """Read an adapter in PEFT's names and order."""
    shardings = None
    if mesh is not None:
        shardings = tree_shardings(mesh, parameter_axes(config, lora)[1], abstract_params(config, lora)[1])
    return _read_tree(files, adapter_leaves(config, lora), shardings)


def _read_tree(files: TensorFiles, leaves: Sequence[Leaf], shardings: Tree | None) -> Tree:
    files.check(file_shapes(leaves))
    found = []
    # The largest first: the copies that a transfer needs then fall into the time when least is held.
    for leaf in sorted(leaves, key=lambda leaf: -max(leaf.layers, 1) * math.prod(leaf.shape)):
        shape = (leaf.layers, *leaf.shape) if leaf.layers else leaf.shape
        read = _reader(files, leaf)
        if shardings is None:
            array = jnp.asarray(read(tuple(slice(0, size) for size in shape)))
        else:
            array = jax.make_array_from_callback(shape, tree_get(shardings, leaf.path), read)
        found.append((leaf.path, array))
    return tree_from(found)


def _reader(files: TensorFiles, leaf: Leaf) -> Callable[[Slices | None], np.ndarray]:
    def one(layer: int, part: Slices) -> np.ndarray:
        return leaf.from_file(files.read(leaf.name(layer), leaf.file_slices(part)), part)

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


def _refuse_leftovers(files: TensorFiles, config: TransformerConfig) -> None:
    """Raise UserError for a tensor the network has no place for: ignoring it would change the model."""
    wanted = file_shapes(leaves(config))
    for name in files.where:
        # Old checkpoints carry the rotary frequencies, which config.json determines.
        if name in wanted or name.endswith("rotary_emb.inv_freq") or name == SCORE:
            continue
        if name == _LM_HEAD and config.tie_embeddings:
            _check_tied_copy(files, config)
            continue
        raise UserError(
            f"{files.where[name]}: tensor {name} belongs to no part of this network; "
            "config.json and the weights do not belong together, or this is another architecture"
        )


def _check_tied_copy(files: TensorFiles, config: TransformerConfig) -> None:
    whole = (slice(0, config.vocab_size), slice(0, config.embed))
    if files.shape(_LM_HEAD) != (config.vocab_size, config.embed) or not np.array_equal(
        files.read(_LM_HEAD, whole), files.read("model.embed_tokens.weight", whole)
    ):
        raise UserError(
            f"{files.where[_LM_HEAD]}: tensor {_LM_HEAD} differs from the embedding though config.json ties them; "
            "write tie_word_embeddings: false"
        )
