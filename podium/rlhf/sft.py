"""One step of supervised fine-tuning: the mean cross-entropy of the response tokens of a batch."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from podium.losses.logprobs import token_logprobs
from podium.losses.masked import fill
from podium.models.packing import Packed
from podium.rlhf.networks import Bases, Network, Weights
from podium.training.accumulate import sum_over
from podium.training.step import TrainState, make_train_step

# Logits exist for so many columns of the rows at a time, and again in the backward pass: whole, they would be the
# largest arrays of the step.
COLUMNS = 128


class DemonstrationBatch(NamedTuple):
    """Packed demonstrations. targets: int32 [rows, width], the token behind each place.

    weight: float32 [rows, width], how much its prediction counts; 0 where that token is of no response.
    """

    packed: Packed
    targets: jax.Array
    weight: jax.Array


def weighted_nll(network: Network, bases: Bases, weights: Weights, batch: DemonstrationBatch) -> jax.Array:
    """Sum of weight * -log p(target) over all places, float32."""
    states = network.packed_states(bases, weights, batch.packed)
    parts = (states, batch.targets, batch.weight)

    def nll(part: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
        states, targets, weight = part
        logprobs = token_logprobs(network.logits(bases, weights, states), targets)
        return -jnp.sum(fill(logprobs, weight > 0) * weight)

    if states.shape[1] <= COLUMNS:
        return nll(parts)
    return sum_over(jax.checkpoint(nll), jax.tree.map(_columns, parts))


def _columns(array: jax.Array) -> jax.Array:
    """Cut [rows, width, ...] into [parts, rows, COLUMNS, ...]: along the width, so that rows stay on their devices."""
    rows, width, *rest = array.shape
    parts = -(-width // COLUMNS)
    padded = jnp.pad(array, [(0, 0), (0, parts * COLUMNS - width), *[(0, 0)] * len(rest)])
    return jnp.moveaxis(padded.reshape(rows, parts, COLUMNS, *rest), 1, 0)


def make_sft_step(
    network: Network, optimizer: optax.GradientTransformation
) -> Callable[[TrainState, Bases, DemonstrationBatch], tuple[TrainState, dict[str, jax.Array]]]:
    """Build the pure step (state, bases, batch) -> (state, metrics); batch leaves lead with micro-batches."""

    def loss(
        weights: Weights, bases: Bases, micro: DemonstrationBatch, total: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        value = weighted_nll(network, bases, weights, micro) / total
        return value, {"loss": value, "num_tokens": jnp.sum((micro.weight > 0).astype(jnp.float32))}

    return make_train_step(loss, lambda batch: batch.weight, optimizer, lambda sums: sums)
