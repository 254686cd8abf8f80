"""Products of activations with kernels."""

import jax
import jax.numpy as jnp

from podium.ops.choices import Implementation
from podium.ops.cpu import linear as cpu
from podium.ops.platform import resolve


def contract(x: jax.Array, kernel: jax.Array, dims: int, implementation: Implementation) -> jax.Array:
    """Contract the last `dims` dimensions of x with the first of the kernel."""
    return cpu.contract(x, kernel, dims) if resolve(implementation) == "cpu" else reference(x, kernel, dims)


def reference(x: jax.Array, kernel: jax.Array, dims: int) -> jax.Array:
    """Write the formula down."""
    return jnp.tensordot(x, kernel, axes=dims)
