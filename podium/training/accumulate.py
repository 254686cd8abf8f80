"""Add up what micro-batches give, one at a time."""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

Sums = TypeVar("Sums")


def like(gradients: Any, masters: Any) -> Any:
    """Give gradients in the types of the weights that are updated: in these they add up."""
    return jax.tree.map(lambda gradient, master: gradient.astype(master.dtype), gradients, masters)


def sum_over(function: Callable[[Any], Sums], parts: Any) -> Sums:
    """Sum a function's results over the leading dimension of every array in `parts`, in a scan."""
    first = jax.tree.map(lambda x: x[0], parts)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(function, first))

    def add(total: Sums, part: Any) -> tuple[Sums, None]:
        return jax.tree.map(jnp.add, total, function(part)), None

    return jax.lax.scan(add, zeros, parts)[0]
