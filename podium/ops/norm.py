"""The normalisation inside RMS norm and layer norm."""

import jax
import jax.numpy as jnp

from podium.ops.choices import Implementation
from podium.ops.cpu import norm as cpu
from podium.ops.platform import resolve


def to_unit_square(x: jax.Array, eps: float, implementation: Implementation) -> jax.Array:
    """x / sqrt(mean(x^2) + eps) over the last dimension, float32 (Zhang and Sennrich 2019, arXiv 1910.07467)."""
    return cpu.to_unit_square(x, eps) if resolve(implementation) == "cpu" else reference(x, eps)


def reference(x: jax.Array, eps: float) -> jax.Array:
    """Write the formula down."""
    return x * jax.lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + eps)
