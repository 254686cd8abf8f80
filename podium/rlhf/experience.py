"""From a rollout and its scores to advantages and returns."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from podium.losses import masked
from podium.losses.ppo import KlKind, gae, kl_estimate, token_rewards
from podium.models.text import Text


class Rollout(NamedTuple):
    """Prompts with their sampled responses.

    finished: boolean [batch], the response ended by itself. lower: what the layers that all networks share made of the
    text, or None.
    """

    text: Text
    finished: jax.Array
    lower: jax.Array | None = None

    @property
    def response_mask(self) -> jax.Array:
        """True at the tokens that were sampled, [batch, response]."""
        return self.text.response_mask


class Experience(NamedTuple):
    """What the updates learn from, each [batch, response]."""

    logprobs: jax.Array
    values: jax.Array
    advantages: jax.Array
    returns: jax.Array


@dataclass(frozen=True)
class RewardSpec:
    """How scores become token rewards and advantages; static under jit."""

    gamma: float
    gae_lambda: float
    kl_estimator: KlKind
    whiten_rewards: bool
    missing_eos: str | None
    missing_eos_penalty: float


def adjust_scores(scores: jax.Array, finished: jax.Array, spec: RewardSpec) -> jax.Array:
    """Penalise responses without an end token: the score becomes minus the penalty, or the penalty is taken off it."""
    if spec.missing_eos is None:
        return scores
    penalised = -spec.missing_eos_penalty if spec.missing_eos == "replace" else scores - spec.missing_eos_penalty
    return jnp.where(finished, scores, penalised)


def make_experience(
    logprobs: jax.Array,
    values: jax.Array,
    ref_logprobs: jax.Array,
    scores: jax.Array,
    mask: jax.Array,
    *,
    kl_coef: jax.Array,
    spec: RewardSpec,
) -> tuple[Experience, dict[str, jax.Array]]:
    """Compute token rewards, GAE, and advantages whitened over the global batch; returns them with objective metrics.

    All inputs are constants to the gradient. `scores` [batch] are already adjusted for missing ends.
    """
    logprobs, values = jax.lax.stop_gradient((logprobs, values))
    rewards = token_rewards(scores, logprobs, ref_logprobs, mask, kl_coef=kl_coef, kind=spec.kl_estimator)
    if spec.whiten_rewards:
        # The mean stays: moving it would reward or punish length (Ziegler et al. 2019, published code).
        rewards = masked.whiten(rewards, mask, shift_mean=False)
    advantages, returns = gae(rewards, values, mask, gamma=spec.gamma, gae_lambda=spec.gae_lambda)
    advantages = masked.whiten(advantages, mask)
    estimate = masked.fill(kl_estimate(logprobs, ref_logprobs, kind=spec.kl_estimator), mask)
    kl = jnp.mean(jnp.sum(estimate, axis=1))
    non_score = -kl_coef * kl
    metrics = {
        "objective/kl": kl,
        "objective/entropy": jnp.mean(jnp.sum(-masked.fill(logprobs, mask), axis=1)),
        "objective/non_score_reward": non_score,
        "objective/scores": jnp.mean(scores),
        "objective/rlhf_reward": jnp.mean(scores) + non_score,
        "objective/kl_coef": kl_coef,
        "objective/response_length": jnp.mean(jnp.sum(mask.astype(jnp.float32), axis=1)),
    }
    return Experience(logprobs, values, advantages, returns), metrics
