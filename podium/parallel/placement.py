"""Put the arrays of a phase on the mesh: weights by their logical axes, batches cut along the batch."""

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

from podium.parallel.mesh import axis_size
from podium.parallel.sharding import FSDP, named_sharding, tree_shardings


def data_parallel(mesh: Mesh) -> int:
    """Number of devices the batch is cut over."""
    return axis_size(mesh, ("slice", "data", *FSDP))


def whole(mesh: Mesh) -> NamedSharding:
    """Every device holds everything."""
    return NamedSharding(mesh, PartitionSpec())


def place_weights(mesh: Mesh, axes: Any, weights: Any) -> Any:
    """Lay a tree of weights out by the logical axes of its leaves."""
    return jax.device_put(weights, tree_shardings(mesh, axes, weights))


def place_batch(mesh: Mesh, batch: Any, *, dim: int = 0) -> Any:
    """Cut dimension `dim` of every array over the data-parallel devices."""

    def put(array: Any) -> jax.Array:
        sharding = batch_sharding(mesh, array.shape, dim)
        return jax.make_array_from_callback(array.shape, sharding, lambda index: np.asarray(array)[index])

    return jax.tree.map(put, batch)


@functools.lru_cache(maxsize=64)
def batch_sharding(mesh: Mesh, shape: tuple[int, ...], dim: int) -> NamedSharding:
    """Cut dimension `dim` of one array over the data-parallel devices."""
    axes = tuple("batch" if index == dim else None for index in range(len(shape)))
    return named_sharding(mesh, axes, shape, "batch")


def fetch(tree: Any) -> Any:
    """Give arrays as NumPy ones in every process, also those that the devices of several share.

    All processes must ask for the same ones in the same order.
    """
    # At once where all of them are here: each transfer waits for the device.
    return jax.device_get(jax.tree.map(_here, tree))


def _here(x: Any) -> Any:
    if not isinstance(x, jax.Array) or x.is_fully_addressable or x.is_fully_replicated:
        return x
    return multihost_utils.process_allgather(x, tiled=True)


def abstract(shapes: Any, shardings: Any) -> Any:
    """Give arrays of these shapes and types as they would lie there: what programs are compiled for without any."""
    return jax.tree.map(lambda x, where: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where), shapes, shardings)


@contextlib.contextmanager
def on(mesh: Mesh | AbstractMesh) -> Iterator[None]:
    """Run programs over this mesh: activations are pinned to their logical axes.

    A mesh of sizes alone serves to trace programs.
    """
    with jax.set_mesh(mesh) if isinstance(mesh, Mesh) else jax.sharding.use_abstract_mesh(mesh):
        yield
