"""cuDNN's flash attention, through `jax.nn.dot_product_attention`.

What it cannot do (jax 0.10.2): float32, soft caps, a bias without a gradient of its own size, several texts in a row,
padding in front of a row, head sizes that are no multiple of 8 or above 128.
"""

from typing import Literal

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from podium.ops.types import RESIDUALS, KeyValues, Visibility

MAX_HEAD_DIM = 128


def refuses(query: jax.Array, visible: Visibility, *, softcap: float | None, bias: jax.Array | None) -> str | None:
    """Say why the kernel cannot compute this, None where it can."""
    head_dim = query.shape[-1]
    if query.dtype not in (jnp.bfloat16, jnp.float16):
        return f"cuDNN's attention computes in 16 bits, not in {query.dtype}"
    if head_dim % 8 or head_dim > MAX_HEAD_DIM:
        return f"cuDNN's attention takes heads of a multiple of 8 up to {MAX_HEAD_DIM}, not {head_dim}"
    if softcap is not None:
        return "cuDNN's attention has no soft cap"
    if bias is not None:
        return "cuDNN's attention adds a bias only with an array of queries x keys"
    if visible.segments is None or visible.segments.packed:
        return "cuDNN's attention takes one text a row"
    if visible.window is not None and not visible.causal:
        return "cuDNN's attention has windows to the left alone"
    return None


def attention(
    query: jax.Array,
    memory: KeyValues,
    visible: Visibility,
    *,
    scale: float,
    softcap: float | None = None,
    implementation: Literal["cudnn", "xla"] = "cudnn",
) -> jax.Array:
    """As `podium.ops.attention.reference`; no array of time x slots is made.

    Lengths say where a row's padding begins, so that rows are moved to the left, and the result back. XLA's
    implementation takes the same arguments on any platform, with an array of time x slots.
    """
    assert visible.segments is not None and softcap is None, "refused before"
    segments = visible.segments
    keys, values = (jnp.swapaxes(x, 1, 2) for x in memory)
    query_start, query_length = _span(segments.query)
    key_start, key_length = _span(segments.key)
    window = None if visible.window is None else (visible.window - 1, 0)
    mixed = jax.nn.dot_product_attention(
        _moved(query, -query_start),
        _moved(keys, -key_start),
        _moved(values, -key_start),
        scale=scale,
        is_causal=visible.causal,
        query_seq_lengths=query_length,
        key_value_seq_lengths=key_length,
        local_window_size=window,
        implementation=implementation,
    )
    return checkpoint_name(_moved(mixed, query_start), RESIDUALS)


def _span(segment: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Where the text of each row begins, and its length; int32 [batch]."""
    real = segment > 0
    return jnp.argmax(real, axis=1).astype(jnp.int32), jnp.sum(real, axis=1, dtype=jnp.int32)


def _moved(x: jax.Array, places: jax.Array) -> jax.Array:
    """Roll each row of x [batch, time, ...] along time."""
    time = x.shape[1]
    source = (jnp.arange(time)[None, :] - places[:, None]) % time
    return jnp.take_along_axis(x, source.reshape(source.shape + (1,) * (x.ndim - 2)), axis=1)
