"""Forms of the leaves of a state: named, gathered from all processes, asked for in a layout, and sent out again."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from podium.parallel import distributed, placement


def form(tree: Any) -> dict[str, str]:
    """Describe every leaf: dtype and shape by dotted name, the same for live and for saved trees."""
    leaves = jax.tree_util.tree_leaves_with_path(ocp.tree.serialize_tree(tree, keep_empty_nodes=True))
    return {jax.tree_util.keystr(path, simple=True, separator="."): _leaf_form(leaf) for path, leaf in leaves}


def _leaf_form(leaf: Any) -> str:
    if isinstance(leaf, int | float | ocp.metadata.ScalarMetadata):
        return "a number"
    return f"{leaf.dtype}{list(leaf.shape)}"


def size(tree: Any) -> int:
    """Count the bytes of all arrays, of all processes together."""
    shapes = (leaf for leaf in jax.tree.leaves(tree) if hasattr(leaf, "shape"))
    return sum(int(np.prod(leaf.shape)) * leaf.dtype.itemsize for leaf in shapes)


def is_key(leaf: Any) -> bool:
    """Tell whether a leaf is a random key."""
    return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def data_of(leaf: Any) -> Any:
    """Give the numbers of a random key, and any other leaf as it is."""
    return jax.random.key_data(leaf) if is_key(leaf) else leaf


def numbers_of(leaf: Any) -> Any:
    """Describe the numbers of a leaf: a random key's, or its own."""
    if not is_key(leaf):
        return leaf
    numbers = jax.eval_shape(jax.random.key_data, leaf)
    return jax.ShapeDtypeStruct(numbers.shape, numbers.dtype, sharding=leaf.sharding)


def wanted(leaf: Any) -> Any:
    """Say what to restore, in what layout. Orbax asks for the numbers of a random key and gives back the key."""
    return numbers_of(leaf) if is_key(leaf) else ocp.utils.to_shape_dtype_struct(leaf)


def as_wanted(leaf: Any, wanted: Any) -> Any:
    """Make a random key of numbers that were saved for one."""
    return jax.random.wrap_key_data(leaf) if is_key(wanted) and not is_key(leaf) else leaf


def gathered(leaf: Any) -> Any:
    """Give a leaf whole, in every process; a random key by its numbers.

    Orbax writes no array of one process's devices where there are several.
    """
    return placement.fetch(data_of(leaf))


def whole(leaf: Any) -> Any:
    """Ask for a leaf on this host, whole."""
    return ocp.utils.to_shape_dtype_struct(jax.eval_shape(jax.random.key_data, leaf) if is_key(leaf) else leaf)


def scattered(state: Any, abstract_state: Any) -> Any:
    """Send what process 0 has read (None in the others) to all, a leaf at a time, and lay it out as wanted."""

    def send(leaf: Any, wanted: Any) -> Any:
        value = multihost_utils.broadcast_one_to_all(leaf, is_source=distributed.is_leader())
        return jax.make_array_from_callback(wanted.shape, wanted.sharding, functools.partial(_part, np.asarray(value)))

    numbers = jax.tree.map(numbers_of, abstract_state)
    if state is None:
        state = jax.tree.map(lambda wanted: np.zeros(wanted.shape, wanted.dtype), numbers)
    else:
        state = jax.tree.map(data_of, state)
    sent = jax.tree.map(send, state, numbers)
    return jax.tree.map(as_wanted, sent, abstract_state)


def _part(value: np.ndarray, index: Any) -> np.ndarray:
    part: np.ndarray = value[index]
    return part
