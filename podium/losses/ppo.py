"""Compute what PPO needs: KL estimates, token rewards, advantages, the two clipped losses, the KL controller.

Arrays are [batch, time] over response positions; `mask` is true at the tokens that the policy chose, the end token
included. Sources: Schulman et al. 2016 (GAE) and 2017 (PPO), Ziegler et al. 2019 (token rewards, adaptive KL).
docs/rlhf.md sections 5 to 9 have every formula, its source and every deviation.
"""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from podium.losses import masked

KlKind = Literal["k1", "k2", "k3"]

# A ratio outside exp(-20) .. exp(20) comes from a broken run: without the bound its gradient is inf * 0 = NaN.
MAX_LOG_RATIO = 20.0
# Ziegler et al. 2019, section 2.2: one update moves the coefficient by no more than this fraction of n / horizon.
MAX_KL_ERROR = 0.2


class Estimates(NamedTuple):
    """Hold what `gae` returns, each [batch, time], zero where the mask is false."""

    advantages: Float[Array, "batch time"]
    returns: Float[Array, "batch time"]


class PolicyStats(NamedTuple):
    """Hold scalar means over counted tokens, named as in the metrics (`policy/approxkl`, `val/ratio`, ...).

    approxkl: half the mean squared log-ratio (k2 of new against old); clipfrac: fraction of tokens where the clipped
    term is the larger loss; ratio: mean of new over old probability; ratio_within: its variance about the mean of the
    tokens at hand; ratio_between: the square of that mean's distance from 1. All add up over micro-batches.
    """

    approxkl: Float[Array, ""]
    clipfrac: Float[Array, ""]
    ratio: Float[Array, ""]
    ratio_within: Float[Array, ""]
    ratio_between: Float[Array, ""]

    @property
    def ratio_var(self) -> Float[Array, ""]:
        """Variance of new over old probability: read it after micro-batches were added up."""
        return jnp.maximum(self.ratio_within + self.ratio_between - jnp.square(self.ratio - 1.0), 0.0)


class ValueStats(NamedTuple):
    """Hold scalar means over counted tokens: the fraction where clipping made the loss larger, the squared error."""

    clipfrac: Float[Array, ""]
    error: Float[Array, ""]


def kl_estimate(logprobs: Array, ref_logprobs: Array, *, kind: KlKind) -> Float[Array, "*shape"]:
    """Estimate KL(policy || reference) token by token from tokens that the policy sampled.

    With d = logprobs - ref_logprobs: k1 = d (unbiased, either sign); k2 = d^2 / 2 (biased, never negative);
    k3 = exp(-d) - 1 + d (unbiased, never negative). Schulman 2020, "Approximating KL divergence".
    """
    difference = jnp.asarray(logprobs).astype(jnp.float32) - jnp.asarray(ref_logprobs).astype(jnp.float32)
    if kind == "k1":
        return difference
    if kind == "k2":
        return 0.5 * jnp.square(difference)
    if kind == "k3":
        return jnp.expm1(-difference) + difference
    raise ValueError(f'kl_estimator is "k1", "k2" or "k3", not {kind!r}')


def token_rewards(
    scores: Float[Array, " batch"],
    logprobs: Float[Array, "batch time"],
    ref_logprobs: Float[Array, "batch time"],
    mask: Bool[Array, "batch time"],
    *,
    kl_coef: Array | float,
    kind: KlKind = "k1",
) -> Float[Array, "batch time"]:
    """Return -kl_coef * KL estimate at every counted token, plus the row's score at the last; zero elsewhere.

    A row without tokens gets no reward at all: its score is dropped.
    """
    estimate = kl_estimate(masked.fill(logprobs, mask), masked.fill(ref_logprobs, mask), kind=kind)
    penalty = masked.fill(-jnp.asarray(kl_coef, jnp.float32) * estimate, mask)
    return penalty + masked.fill(jnp.asarray(scores)[:, None], masked.last(mask))


def gae(
    rewards: Float[Array, "batch time"],
    values: Float[Array, "batch time"],
    mask: Bool[Array, "batch time"],
    *,
    gamma: float,
    gae_lambda: float,
) -> Estimates:
    """Return generalized advantage estimates and the returns (advantages + values) that train the critic.

    delta_t = r_t + gamma V_next - V_t and A_t = delta_t + gamma lambda A_next, where *next* is the next counted
    position of the row and both are zero behind the last one: uncounted positions, wherever they lie, change nothing.
    """
    rewards, values = masked.fill(rewards, mask), masked.fill(values, mask)
    advantages = _discounted(rewards, values, jnp.asarray(mask, bool), gamma, gae_lambda)
    return Estimates(advantages, advantages + values)


@jax.jit  # Called outside jit, the scan would be compiled anew each time: its body is a new function each time.
def _discounted(rewards: Array, values: Array, counts: Array, gamma: Array, gae_lambda: Array) -> Array:
    def step(carry: tuple[Array, Array], now: tuple[Array, Array, Array]) -> tuple[tuple[Array, Array], Array]:
        next_value, next_advantage = carry
        reward, value, counts_now = now
        advantage = reward + gamma * next_value - value + gamma * gae_lambda * next_advantage
        kept = (jnp.where(counts_now, value, next_value), jnp.where(counts_now, advantage, next_advantage))
        return kept, jnp.where(counts_now, advantage, 0.0)

    end = jnp.zeros_like(values[:, 0])
    _, advantages = jax.lax.scan(step, (end, end), (rewards.T, values.T, counts.T), reverse=True)
    return advantages.T


def policy_loss(
    logprobs: Float[Array, "batch time"],
    old_logprobs: Float[Array, "batch time"],
    advantages: Float[Array, "batch time"],
    mask: Bool[Array, "batch time"],
    *,
    clip_range: float,
    total: Array | None = None,
) -> tuple[Float[Array, ""], PolicyStats]:
    """Return PPO's clipped surrogate, mean over counted tokens of max(-A r, -A clip(r, 1 - c, 1 + c)), and statistics.

    r = exp(logprobs - old_logprobs), the log-ratio bounded to +-20. `total` is the token count to divide by, for
    micro-batches: see `masked.mean`.
    """
    advantages = masked.fill(advantages, mask)
    log_ratio = masked.fill(logprobs, mask) - masked.fill(old_logprobs, mask)
    log_ratio = jnp.clip(log_ratio, -MAX_LOG_RATIO, MAX_LOG_RATIO)
    ratio = jnp.exp(log_ratio)
    free = -advantages * ratio
    clipped = -advantages * jnp.clip(ratio, 1.0 - clip_range, 1.0 + clip_range)
    loss = masked.mean(jnp.maximum(free, clipped), mask, total=total)
    centre = masked.mean(ratio, mask)
    stats = PolicyStats(
        approxkl=0.5 * masked.mean(jnp.square(log_ratio), mask, total=total),
        clipfrac=masked.mean(clipped > free, mask, total=total),
        ratio=masked.mean(ratio, mask, total=total),
        ratio_within=masked.mean(jnp.square(ratio - centre), mask, total=total),
        ratio_between=masked.mean(mask, mask, total=total) * jnp.square(centre - 1.0),
    )
    return loss, jax.lax.stop_gradient(stats)


def value_loss(
    values: Float[Array, "batch time"],
    old_values: Float[Array, "batch time"],
    returns: Float[Array, "batch time"],
    mask: Bool[Array, "batch time"],
    *,
    clip_range: float,
    total: Array | None = None,
) -> tuple[Float[Array, ""], ValueStats]:
    """Return half the mean over counted tokens of max((V - R)^2, (V_clipped - R)^2), and statistics.

    V_clipped moves no further than `clip_range` from the value at rollout time. `vf_coef` is the caller's. `total` is
    the token count to divide by, for micro-batches: see `masked.mean`.
    """
    values, old_values, returns = (masked.fill(x, mask) for x in (values, old_values, returns))
    limited = old_values + jnp.clip(values - old_values, -clip_range, clip_range)
    free, clipped = jnp.square(values - returns), jnp.square(limited - returns)
    loss = 0.5 * masked.mean(jnp.maximum(free, clipped), mask, total=total)
    stats = ValueStats(
        clipfrac=masked.mean(clipped > free, mask, total=total),
        error=masked.mean(free, mask, total=total),
    )
    return loss, jax.lax.stop_gradient(stats)


def adapt_kl_coef(
    coef: Array | float, kl: Array | float, n: Array | int, *, target: float, horizon: float
) -> Float[Array, ""]:
    """Return coef * (1 + clip(kl / target - 1, -0.2, 0.2) * n / horizon), float32.

    `kl` is the mean over responses of the KL summed over tokens, `n` the number of responses it was measured on. The
    coefficient is state of the training step: Ziegler et al. 2019, section 2.2, in the form of its published code.
    """
    error = jnp.clip(jnp.asarray(kl, jnp.float32) / target - 1.0, -MAX_KL_ERROR, MAX_KL_ERROR)
    return jnp.asarray(coef, jnp.float32) * (1.0 + error * jnp.asarray(n, jnp.float32) / horizon)


class AdaptiveKL(NamedTuple):
    """Steer the KL coefficient to a target. An immutable value: `update` returns a coefficient and changes nothing."""

    init: Array | float
    target: float
    horizon: float

    def update(self, kl: Array | float, n: Array | int) -> Float[Array, ""]:
        """Return the coefficient that follows `init` after `n` responses of mean KL `kl`: see `adapt_kl_coef`."""
        return adapt_kl_coef(self.init, kl, n, target=self.target, horizon=self.horizon)
