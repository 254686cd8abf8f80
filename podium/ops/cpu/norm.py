"""The normalisation with fewer passes over memory in its backward pass."""

import functools

import jax
import jax.numpy as jnp


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def to_unit_square(x: jax.Array, eps: float) -> jax.Array:
    """As `podium.ops.norm.reference`. The backward pass keeps x and one number per row.

    Derived by JAX it takes twice as many passes over arrays of x's size, a twentieth of a small model's training step.
    """
    return _forward(x, eps)[0]


def _forward(x: jax.Array, eps: float) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    factor = jax.lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + eps)
    return x * factor, (x, factor)


def _backward(eps: float, kept: tuple[jax.Array, jax.Array], dy: jax.Array) -> tuple[jax.Array]:
    x, factor = kept
    normed = x * factor
    return (factor * (dy - normed * jnp.mean(dy * normed, axis=-1, keepdims=True)),)


to_unit_square.defvjp(_forward, _backward)
