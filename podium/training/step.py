"""One optimizer step on a batch that is cut into micro-batches; fine-tuning and reward training are losses for it."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from podium.parallel import placement
from podium.parallel.sharding import sum_of_slices
from podium.training.accumulate import like, sum_over
from podium.training.optimizer import open_optimizer

Batch = TypeVar("Batch")
Numbers = dict[str, jax.Array]
# (weights, frozen, micro-batch, total) -> (its part of the batch's mean loss, numbers that add up over micro-batches).
# `total` is what the mean is over, summed over the whole batch, so that the parts add up however rows fall.
LossFn = Callable[[Any, Any, Batch, jax.Array], tuple[jax.Array, Numbers]]


class TrainState(NamedTuple):
    """What training carries from step to step. step: int32, completed optimizer steps."""

    weights: Any
    optimizer: Any
    step: jax.Array


def start_state(mesh: Mesh, axes: Any, weights: Any, tx: optax.GradientTransformation) -> TrainState:
    """Lay weights out on the mesh by their logical axes and open their optimizer's state: the start of training."""
    placed = placement.place_weights(mesh, axes, weights)
    count = jax.device_put(jnp.zeros((), jnp.int32), placement.whole(mesh))
    return TrainState(placed, open_optimizer(tx, mesh, axes, placed), count)


def make_train_step(
    loss: LossFn[Batch],
    weight: Callable[[Batch], jax.Array],
    optimizer: optax.GradientTransformation,
    summary: Callable[[Numbers], Numbers],
    compute: Callable[[Any], Any],
) -> Callable[[TrainState, Any, Batch], tuple[TrainState, Numbers]]:
    """Build the pure step (state, frozen, batch) -> (state, metrics); batch leaves lead with micro-batches.

    `weight(batch)` are the weights of what the loss is a mean over; `summary` makes metrics of the summed numbers;
    `compute` gives the trained weights in the type that the loss computes in, once for all micro-batches.
    """

    def step(state: TrainState, frozen: Any, batch: Batch) -> tuple[TrainState, Numbers]:
        weights = weight(batch)
        total = jnp.maximum(jnp.sum(weights), 1e-9)
        same = compute(state.weights), state.weights, frozen, total
        gradients, sums = sum_of_slices(functools.partial(_gradient, loss), same, batch)
        updates, new_optimizer = optimizer.update(gradients, state.optimizer, state.weights)
        new_weights = optax.apply_updates(state.weights, updates)
        metrics = summary(sums) | {"grad_norm": optax.global_norm(gradients)}
        return TrainState(new_weights, new_optimizer, state.step + 1), metrics

    return step


def _gradient(loss: LossFn[Batch], same: tuple[Any, Any, Any, jax.Array], batch: Batch) -> tuple[Any, Numbers]:
    """Add up gradients, in the types of the masters, and numbers over micro-batches; same: what all of them see."""
    trained, masters, frozen, total = same

    def of_micro_batch(micro: Batch) -> tuple[Any, Numbers]:
        gradients, numbers = jax.grad(loss, has_aux=True)(trained, frozen, micro, total)
        return like(gradients, masters), numbers

    if jax.tree.leaves(batch)[0].shape[0] == 1:
        return of_micro_batch(jax.tree.map(lambda x: x[0], batch))
    return sum_over(of_micro_batch, batch)
