"""Put the arrays of a phase on the mesh: weights by their logical axes, batches cut along the batch."""

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from podium.parallel.sharding import named_sharding, tree_shardings
from podium.rlhf.networks import Network, Weights
from podium.training.optimizer import optimizer_shardings
from podium.training.step import TrainState


def data_parallel(mesh: Mesh) -> int:
    """Number of devices the batch is cut over."""
    return int(np.prod([mesh.shape[axis] for axis in ("slice", "data", "fsdp")]))


def whole(mesh: Mesh) -> NamedSharding:
    """Every device holds everything."""
    return NamedSharding(mesh, PartitionSpec())


def weight_shardings(mesh: Mesh, network: Network, weights: Weights) -> Any:
    return tree_shardings(mesh, network.axes(weights), weights)


def place_weights(mesh: Mesh, network: Network, weights: Weights) -> Weights:
    return jax.device_put(weights, weight_shardings(mesh, network, weights))


def place_optimizer(mesh: Mesh, network: Network, weights: Weights, tx: optax.GradientTransformation) -> Any:
    """Open the optimizer's state with every slot laid out like its parameter."""
    shardings = optimizer_shardings(tx, weight_shardings(mesh, network, weights), weights, mesh)
    return jax.jit(tx.init, out_shardings=shardings)(weights)


def start_state(mesh: Mesh, network: Network, weights: Weights, tx: optax.GradientTransformation) -> TrainState:
    """Lay weights out on the mesh and open their optimizer's state: the start of training."""
    placed = place_weights(mesh, network, weights)
    count = jax.device_put(jnp.zeros((), jnp.int32), whole(mesh))
    return TrainState(placed, place_optimizer(mesh, network, placed, tx), count)


def place_batch(mesh: Mesh, batch: Any, *, dim: int = 0) -> Any:
    """Cut dimension `dim` of every array over the data-parallel devices."""

    def put(array: Any) -> jax.Array:
        sharding = _batch_sharding(mesh, array.shape, dim)
        return jax.make_array_from_callback(array.shape, sharding, lambda index: np.asarray(array)[index])

    return jax.tree.map(put, batch)


@functools.lru_cache(maxsize=64)
def _batch_sharding(mesh: Mesh, shape: tuple[int, ...], dim: int) -> NamedSharding:
    axes = tuple("batch" if index == dim else None for index in range(len(shape)))
    return named_sharding(mesh, axes, shape, "batch")


@contextlib.contextmanager
def on(mesh: Mesh) -> Iterator[None]:
    """Run programs over this mesh: activations are pinned to their logical axes."""
    with jax.set_mesh(mesh):
        yield
