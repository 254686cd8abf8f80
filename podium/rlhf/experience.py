"""From a rollout and its scores to advantages and returns."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from podium.losses import masked
from podium.losses.ppo import KlKind, gae, kl_estimate, token_rewards


class ScoreScale(NamedTuple):
    """Mean and standard deviation of scores that stand for the starting policy: what scores are measured by."""

    mean: jax.Array
    std: jax.Array

    @classmethod
    def of(cls, scores: jax.Array) -> "ScoreScale":
        """Measure scores [samples]; equal ones are only centred."""
        std = jnp.std(scores)
        return cls(jnp.mean(scores), jnp.where(std > 1e-6, std, 1.0))

    @classmethod
    def none(cls) -> "ScoreScale":
        """Leave scores as they are."""
        return cls(jnp.zeros((), jnp.float32), jnp.ones((), jnp.float32))

    def apply(self, scores: jax.Array) -> jax.Array:
        """Give scores in units of the scale."""
        return (scores - self.mean) / self.std


class Predictions(NamedTuple):
    """What the networks being trained say of a rollout's tokens, each [rows, response].

    values: None without a critic; entropies: constants to the gradient, None where predictions are kept as old ones.
    """

    logprobs: jax.Array
    values: jax.Array | None
    entropies: jax.Array | None

    def old(self) -> "Predictions":
        """Give what experience is made of, as constants to the gradient."""
        old: Predictions = jax.lax.stop_gradient(self._replace(entropies=None))
        return old


class ScoredRollout(NamedTuple):
    """What is known of a rollout beside its texts.

    mask: true at sampled tokens, [batch, response]; finished: the response ended by itself, [batch]; ref_logprobs:
    under the reference, [batch, response]; raw_scores, scores: [batch], as given and adjusted.
    """

    mask: jax.Array
    finished: jax.Array
    ref_logprobs: jax.Array
    raw_scores: jax.Array
    scores: jax.Array


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


def explained_variance(values: jax.Array, returns: jax.Array, mask: jax.Array) -> jax.Array:
    """Share of the returns' variance over tokens that the values account for: 1 - Var(returns - values) / Var(returns).

    1 for a perfect critic, 0 for one that knows the mean alone, negative for one that is worse; 0 for equal returns.
    """

    def variance(x: jax.Array) -> jax.Array:
        return masked.mean(jnp.square(x - masked.mean(x, mask)), mask)

    total = variance(returns)
    return jnp.where(total > 1e-12, 1.0 - variance(returns - values) / jnp.maximum(total, 1e-12), 0.0)


def make_experience(
    old: Predictions, scored: ScoredRollout, *, kl_coef: jax.Array, spec: RewardSpec
) -> tuple[Experience, dict[str, jax.Array]]:
    """Compute token rewards, GAE, and advantages whitened over the global batch; returns them with objective metrics.

    All inputs are constants to the gradient.
    """
    logprobs, values, (mask, finished, ref_logprobs, raw_scores, scores) = old.logprobs, old.values, scored
    assert values is not None, "generalised advantages need a critic"
    rewards = token_rewards(scores, logprobs, ref_logprobs, mask, kl_coef=kl_coef, kind=spec.kl_estimator)
    if spec.whiten_rewards:
        # The mean stays: moving it would reward or punish length (Ziegler et al. 2019, published code).
        rewards = masked.whiten(rewards, mask, shift_mean=False)
    advantages, returns = gae(rewards, values, mask, gamma=spec.gamma, gae_lambda=spec.gae_lambda)
    explained = explained_variance(values, returns, mask)
    advantages = masked.whiten(advantages, mask)
    estimate = masked.fill(kl_estimate(logprobs, ref_logprobs, kind=spec.kl_estimator), mask)
    kl = jnp.mean(jnp.sum(estimate, axis=1))
    non_score = -kl_coef * kl
    metrics = {
        "objective/kl": kl,
        "objective/entropy": jnp.mean(jnp.sum(-masked.fill(logprobs, mask), axis=1)),
        "objective/non_score_reward": non_score,
        "objective/scores": jnp.mean(scores),
        "objective/scores_raw": jnp.mean(raw_scores),
        "objective/scores_std": jnp.std(raw_scores),
        "objective/rlhf_reward": jnp.mean(scores) + non_score,
        "objective/kl_coef": kl_coef,
        "val/explained_variance": explained,
        "val/num_eos_tokens": jnp.sum(finished.astype(jnp.int32)),
        "objective/response_length": jnp.mean(jnp.sum(mask.astype(jnp.float32), axis=1)),
    }
    return Experience(logprobs, values, advantages, returns), metrics
