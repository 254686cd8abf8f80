"""One step of supervised fine-tuning: the mean cross-entropy of the response tokens of a batch."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from podium.losses.masked import fill
from podium.models.packing import Packed
from podium.rlhf.networks import Bases, Network, Weights
from podium.training.step import TrainState, make_train_step


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
    logprobs = network.token_logprobs(bases, weights, states, batch.targets)
    return -jnp.sum(fill(logprobs, batch.weight > 0) * batch.weight)


def make_sft_step(
    network: Network, optimizer: optax.GradientTransformation
) -> Callable[[TrainState, Bases, DemonstrationBatch], tuple[TrainState, dict[str, jax.Array]]]:
    """Build the pure step (state, bases, batch) -> (state, metrics); batch leaves lead with micro-batches."""

    def loss(
        weights: Weights, bases: Bases, micro: DemonstrationBatch, total: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        value = weighted_nll(network, bases, weights, micro) / total
        return value, {"loss": value, "num_tokens": jnp.sum((micro.weight > 0).astype(jnp.float32))}

    return make_train_step(loss, lambda batch: batch.weight, optimizer, lambda sums: sums, network.compute)
