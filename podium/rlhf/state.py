"""What PPO carries from step to step, and what it reads and never changes."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from podium.rlhf.experience import ScoreScale
from podium.rlhf.networks import Bases, Weights


class Frozen(NamedTuple):
    """What a step reads and nobody trains: base trees by name, and the reward model's own weights.

    Where the policy answers in another layout, "rollout" is its base again, laid out so: a second copy of the base,
    cut over other devices, that lives as long as the run.
    """

    bases: Bases
    reward: Weights


class PpoState(NamedTuple):
    """Everything a run carries from step to step; a checkpoint holds all of it.

    weights, optimizer: {"policy": ..., "critic": ...}; with a shared trunk the critic's head is in the policy and
    there is no "critic". kl_coef: float32 scalar. key: random state. step: int32, completed steps. scale: what scores
    are measured by, set once.
    """

    weights: dict[str, Weights]
    optimizer: dict[str, Any]
    kl_coef: jax.Array
    key: jax.Array
    step: jax.Array
    scale: ScoreScale


def init_state(
    weights: dict[str, Weights],
    optimizers: dict[str, optax.GradientTransformation],
    *,
    kl_coef: float,
    key: jax.Array,
) -> PpoState:
    """Start of a run; `optimizers` has the keys of `weights`."""
    return PpoState(
        weights=weights,
        optimizer={name: optimizers[name].init(tree) for name, tree in weights.items()},
        kl_coef=jnp.asarray(kl_coef, jnp.float32),
        key=key,
        step=jnp.zeros((), jnp.int32),
        scale=ScoreScale.none(),
    )


class StepKeys(NamedTuple):
    """Random streams of one step, and the state's next key."""

    following: jax.Array
    rollout: jax.Array
    order: jax.Array


def step_keys(state: PpoState) -> StepKeys:
    return StepKeys(*jax.random.split(state.key, 3))
