"""From logits to tokens, without sorting the vocabulary and without a Gumbel draw per token."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from podium.ops.choices import Implementation
from podium.ops.picking import pick
from podium.ops.sampling import first_highest, inverse_cdf, kth_highest
from podium.parallel.sharding import constrain

# Bisection steps for the nucleus threshold; 2^-30 of a probability is below float32 resolution.
_BISECTIONS = 30


@dataclass(frozen=True)
class Sampling:
    """How a token is chosen; static under jit. temperature 0 is greedy, top_k 0 and top_p 1 are off."""

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0


def draws(keys: jax.Array, count: int) -> jax.Array:
    """Uniform numbers in [0, 1), float32 [count, batch], of one random key per row; draw n is the same for any count.

    All at once: a decode loop would run a dozen small operations for each token.
    """

    def draw(step: jax.Array, key: jax.Array) -> jax.Array:
        return jax.random.uniform(jax.random.fold_in(key, step), (), jnp.float32)

    steps = jnp.arange(count, dtype=jnp.uint32)
    return jax.vmap(jax.vmap(draw, in_axes=(None, 0)), in_axes=(0, None))(steps, keys)


def choose(
    logits: jax.Array, uniform: jax.Array, sampling: Sampling, implementation: Implementation
) -> tuple[jax.Array, jax.Array]:
    """Choose one token per row of logits [batch, vocab] by one number of `draws` [batch]; (ids, log-probabilities).

    The log-probability is that of the full softmax at the sampling temperature (at 1 when greedy): top-k and top-p
    restrict the choice, not the policy that PPO measures. Devices that share a vocabulary keep their parts of it: what
    crosses them is a few numbers a row.
    """
    wide = constrain(logits, "batch", "vocab").astype(jnp.float32)
    if sampling.temperature > 0:
        wide = wide / sampling.temperature
    if sampling.temperature == 0:
        ids = first_highest(wide, implementation)
    else:
        allowed = _nucleus(_top_k(wide, sampling.top_k), sampling.top_p)
        weights = jnp.exp(allowed - jnp.max(allowed, axis=-1, keepdims=True))
        ids = inverse_cdf(weights, uniform, implementation)
    chosen = pick(wide, ids)
    return ids, chosen - jax.nn.logsumexp(wide, axis=-1)


def _top_k(logits: jax.Array, k: int) -> jax.Array:
    if k <= 0 or k >= logits.shape[-1]:
        return logits
    return jnp.where(logits >= kth_highest(logits, k), logits, -jnp.inf)


def _nucleus(logits: jax.Array, top_p: float) -> jax.Array:
    """Keep the smallest set of likeliest tokens whose mass reaches top_p (Holtzman et al. 2020), by bisection."""
    if top_p >= 1.0:
        return logits
    probabilities = jax.nn.softmax(logits, axis=-1)

    def halve(_: int, bounds: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = bounds
        middle = (low + high) / 2
        kept = jnp.sum(jnp.where(probabilities >= middle[:, None], probabilities, 0.0), axis=-1)
        enough = kept >= top_p
        return jnp.where(enough, middle, low), jnp.where(enough, high, middle)

    highest = jnp.max(probabilities, axis=-1)
    low, _ = jax.lax.fori_loop(0, _BISECTIONS, halve, (jnp.zeros_like(highest), highest))
    return jnp.where(probabilities >= low[:, None], logits, -jnp.inf)
