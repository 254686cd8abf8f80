"""From logits or weights to token ids."""

import jax
import jax.numpy as jnp

from podium.ops.choices import Implementation
from podium.ops.cpu import sampling as cpu
from podium.ops.platform import resolve


def first_highest(logits: jax.Array, implementation: Implementation) -> jax.Array:
    """The lowest id among the highest of each row [batch, vocab], int32."""
    if resolve(implementation) == "cpu":
        return cpu.first_highest(logits)
    return jnp.argmax(logits, axis=-1).astype(jnp.int32)


def inverse_cdf(weights: jax.Array, uniform: jax.Array, implementation: Implementation) -> jax.Array:
    """Find for each row of weights [batch, vocab] the first token whose cumulative weight exceeds uniform * total.

    Weights are not negative, and need not add up to 1. A token of weight zero is never chosen.
    """
    variant = cpu.inverse_cdf if resolve(implementation) == "cpu" else reference_inverse_cdf
    return variant(weights, uniform)


def reference_inverse_cdf(weights: jax.Array, uniform: jax.Array) -> jax.Array:
    """Write the formula down."""
    cumulative = jnp.cumsum(weights, axis=-1)
    # Sums that are made in parallel do not rise steadily: a token without weight may stand above the one before it.
    real = weights > 0
    total = jnp.max(jnp.where(real, cumulative, 0.0), axis=-1, keepdims=True)
    # uniform * total may be rounded up to total, which no sum exceeds.
    target = jnp.minimum(uniform[:, None] * total, total * (1 - jnp.finfo(jnp.float32).eps))
    return jnp.argmax((cumulative > target) & real, axis=-1).astype(jnp.int32)
