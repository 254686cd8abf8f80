"""One step of reward model training, and the normalisation that travels with the model."""

from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from podium.losses.preference import centering_loss, plackett_luce_loss, ranked_pairs_loss
from podium.models.packing import Packed
from podium.rlhf.networks import Bases, Network, Weights
from podium.training.step import TrainState, make_train_step

LossKind = Literal["pairwise", "plackett_luce"]


class Comparisons(NamedTuple):
    """Ranked lists of responses to a prompt; a pair is a list of two.

    packed: a row per list, with the prompt once where the network can share it; ends: [lists, candidates], where a
    candidate's last token stands; ranks: int [lists, candidates], 1 is best; present: boolean [lists, candidates];
    weight: [lists], 0 for a filler; margin: [lists], 0 where there is none.
    """

    packed: Packed
    ends: jax.Array
    ranks: jax.Array
    present: jax.Array
    weight: jax.Array
    margin: jax.Array


def pair_outcomes(scores: jax.Array, ranks: jax.Array, present: jax.Array) -> tuple[jax.Array, jax.Array]:
    """For every ordered pair (i better than j): score difference [lists, k, k] and whether the pair exists."""
    exists = (ranks[:, :, None] < ranks[:, None, :]) & present[:, :, None] & present[:, None, :]
    return jnp.where(exists, scores[:, :, None] - scores[:, None, :], 0.0), exists


def make_reward_step(
    network: Network, optimizer: optax.GradientTransformation, *, loss: LossKind, center_rewards_coefficient: float
) -> Callable[[TrainState, Bases, Comparisons], tuple[TrainState, dict[str, jax.Array]]]:
    """Build the pure step (state, bases, batch) -> (state, metrics); batch leaves lead with micro-batches."""

    def ranking_loss(scores: jax.Array, batch: Comparisons) -> jax.Array:
        if loss == "plackett_luce":
            value = plackett_luce_loss(scores, batch.ranks, batch.present, weight=batch.weight)
        else:
            value = ranked_pairs_loss(scores, batch.ranks, batch.present, margin=batch.margin, weight=batch.weight)
        if center_rewards_coefficient:
            centring = centering_loss(scores, batch.present, weight=batch.weight)
            value = value + center_rewards_coefficient * centring
        return value

    def micro_loss(
        weights: Weights, bases: Bases, micro: Comparisons, total: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        scores = network.packed_scores(bases, weights, micro.packed, micro.ends)
        value = jnp.sum(micro.weight) / total * ranking_loss(scores, micro)
        difference, exists = pair_outcomes(scores, micro.ranks, micro.present & (micro.weight > 0)[:, None])
        right = jnp.where(difference == 0, 0.5, (difference > 0).astype(jnp.float32))
        sums = {
            "loss": value,
            "right": jnp.sum(jnp.where(exists, right, 0.0)),
            "margin": jnp.sum(difference),
            "pairs": jnp.sum(exists.astype(jnp.float32)),
        }
        return value, sums

    return make_train_step(micro_loss, lambda batch: batch.weight, optimizer, _means, network.compute)


def _means(sums: dict[str, jax.Array]) -> dict[str, jax.Array]:
    pairs = jnp.maximum(sums["pairs"], 1.0)
    return {"loss": sums["loss"], "accuracy": sums["right"] / pairs, "margin": sums["margin"] / pairs}


def fold_normalisation(head: Weights, gain: float | jax.Array, bias: float | jax.Array) -> Weights:
    """Put reward = gain * score + bias into the head itself."""
    return {"kernel": head["kernel"] * gain, "bias": head["bias"] * gain + bias}


def normalisation(scores: jax.Array) -> tuple[float, float]:
    """Gain and bias that give these scores mean 0 and variance 1 (Ziegler et al. 2019, section 2.1)."""
    mean, std = float(jnp.mean(scores)), float(jnp.std(scores))
    gain = 1.0 / std if std > 1e-6 else 1.0
    return gain, -gain * mean
