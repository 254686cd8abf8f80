"""Products with kernels whose gradients XLA for CPUs computes in its fast loops."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def contract(x: jax.Array, kernel: jax.Array, dims: int) -> jax.Array:
    """As `podium.ops.linear.reference`, with a backward pass of its own.

    The gradient of a kernel is a product over all tokens, and one of its operands has to be transposed. XLA for CPUs
    computes what leads to that operand anew inside the transposition, without vector instructions: for the gate of an
    MLP that took half of a training step. So it is the narrower one, which for all widening layers is x itself.
    """
    return jnp.tensordot(x, kernel, axes=dims)


def _contract_forward(x: Any, kernel: Any, dims: int) -> tuple[jax.Array, Any]:
    # The product stands here in the open, not in a call of `contract`: a policy of `jax.checkpoint` that keeps products
    # must see it. A frozen kernel needs no x for the backward pass: it is not kept.
    product = jnp.tensordot(x.value, kernel.value, axes=dims)
    return product, (x.value if kernel.perturbed else None, kernel.value)


def _contract_backward(dims: int, kept: Any, dy: Any) -> tuple[Any, Any]:
    x, kernel = kept
    if isinstance(dy, jax.custom_derivatives.SymbolicZero):
        return None, None
    outputs = kernel.ndim - dims
    lead = dy.ndim - outputs
    into = tuple(range(lead, dy.ndim)), tuple(range(dims, kernel.ndim))
    dx = jax.lax.dot_general(dy, kernel, (into, ((), ())))
    if x is None:
        return dx, None
    tokens = tuple(range(lead))
    if math.prod(kernel.shape[:dims]) <= math.prod(kernel.shape[dims:]):
        return dx, jax.lax.dot_general(x, dy, ((tokens, tokens), ((), ())))
    # Behind a barrier: XLA would move the transposition into the product, which then misses its fast kernels.
    swapped = jax.lax.optimization_barrier(jax.lax.dot_general(dy, x, ((tokens, tokens), ((), ()))))
    return dx, jnp.transpose(swapped, (*range(outputs, kernel.ndim), *range(outputs)))


contract.defvjp(_contract_forward, _contract_backward, symbolic_zeros=True)
