"""Compute what is made of logits in parts of a row, so that logits never exist for a whole batch."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

# Logits of one row that may exist at a time: 16 MiB in float32. A row of the usual answers is one part.
LOGITS_PER_ROW = 2**22


def over_columns(function: Callable[..., Any], *arrays: jax.Array, vocab: int) -> Any:
    """Apply a function that makes logits to arrays [rows, width, ...], some columns at a time.

    function: of the arrays, cut along the width, to arrays [rows, columns]; it may close over anything. What it makes
    on the way, batch x columns x vocab among it, is freed after each part and made again in the backward pass (Chen et
    al. 2016, arXiv 1604.06174); where the width is one part nothing is made twice. Returns arrays [rows, width].
    """
    width = arrays[0].shape[1]
    count = -(-width * vocab // LOGITS_PER_ROW)
    if count <= 1:
        return function(*arrays)
    columns = -(-width // count)
    count = -(-width // columns)

    def cut(array: jax.Array) -> jax.Array:
        """Lead with parts: along the width, so that rows stay on their devices."""
        padded = jnp.pad(array, [(0, 0), (0, count * columns - width), *[(0, 0)] * (array.ndim - 2)])
        return jnp.moveaxis(padded.reshape(len(array), count, columns, *array.shape[2:]), 1, 0)

    def join(parts: jax.Array) -> jax.Array:
        return jnp.moveaxis(parts, 0, 1).reshape(parts.shape[1], -1)[:, :width]

    parts = jax.lax.map(jax.checkpoint(lambda part: function(*part)), tuple(map(cut, arrays)))
    return jax.tree.map(join, parts)
