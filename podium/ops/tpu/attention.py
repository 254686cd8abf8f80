"""Splash attention: JAX's block-sparse flash attention for TPUs.

What it cannot do, as tried with jax 0.10.2: a bias added to scores; texts that only a mask can tell apart.
"""

import functools

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel, splash_attention_mask
from jax.sharding import PartitionSpec

from podium.ops.types import RESIDUALS, KeyValues, Visibility
from podium.parallel.sharding import mesh_in_force, on_each_device, partition_spec

# Lengths are padded to multiples of it: the lanes of a vector register.
LANES = 128
# Queries and keys of one block: larger ones reuse what is loaded more often, and must divide the lengths.
BLOCK = 512


def refuses(query: jax.Array, visible: Visibility, *, softcap: float | None, bias: jax.Array | None) -> str | None:
    """Say why the kernel cannot compute this, None where it can."""
    if bias is not None:
        return "splash attention adds no bias to scores"
    if visible.segments is None:
        return "splash attention tells texts apart by segments, and these only by a mask"
    return None


def attention(
    query: jax.Array,
    memory: KeyValues,
    visible: Visibility,
    *,
    scale: float,
    softcap: float | None = None,
    interpret: bool = False,
) -> jax.Array:
    """As `podium.ops.attention.reference`, for [batch, time, heads, head_dim]; no array of time x slots is made.

    Over a mesh each device runs the kernel on its own rows and heads. `interpret` runs it on any platform, slowly.
    """
    assert visible.segments is not None, "refused before"
    # Folded into the small operand, in float32: the kernel has no scale.
    query = (query.astype(jnp.float32) * scale).astype(query.dtype)
    queries = jnp.swapaxes(query, 1, 2)
    segments = visible.segments
    run = functools.partial(
        _on_device, causal=visible.causal, window=visible.window, softcap=softcap, interpret=interpret
    )
    if mesh_in_force() is not None:
        rows, heads = partition_spec(("batch", "heads"))
        each, row = PartitionSpec(rows, heads), PartitionSpec(rows)
        # Unchecked: the check does not know the kernel.
        run = on_each_device(run, (each, each, each, row, row), each, check=False)
    mixed = run(queries, memory.keys, memory.values, segments.query, segments.key)
    return jnp.swapaxes(mixed, 1, 2)


def _on_device(
    query: jax.Array,
    keys: jax.Array,
    values: jax.Array,
    query_segment: jax.Array,
    key_segment: jax.Array,
    *,
    causal: bool,
    window: int | None,
    softcap: float | None,
    interpret: bool,
) -> jax.Array:
    """Run the kernel on one device's heads: query [batch, heads, time, head_dim], keys [batch, kv_heads, slots, ..]."""
    heads, time, slots = query.shape[1], query.shape[2], keys.shape[2]
    padded_time, padded_slots = _padded(time), _padded(slots)

    def pad(x: jax.Array, length: int, dim: int) -> jax.Array:
        return jnp.pad(x, [(0, length - x.shape[dim] if axis == dim else 0) for axis in range(x.ndim)])

    # What is padded belongs to segment 0, as padding does.
    query, query_segment = pad(query, padded_time, 2), pad(query_segment, padded_time, 1)
    keys, values = pad(keys, padded_slots, 2), pad(values, padded_slots, 2)
    key_segment = pad(key_segment, padded_slots, 1)
    kernel = splash_attention_kernel.make_splash_mha_single_device(
        mask=splash_attention_mask.MultiHeadMask([_mask(padded_time, padded_slots, causal, window)] * heads),
        block_sizes=_block_sizes(padded_time, padded_slots),
        attn_logits_soft_cap=softcap,
        residual_checkpoint_name=RESIDUALS,
        interpret=interpret,
    )
    ids = splash_attention_kernel.SegmentIds(query_segment, key_segment)
    out: jax.Array = jax.vmap(kernel)(query, keys, values, segment_ids=ids)
    return out[:, :, :time]


def _padded(length: int) -> int:
    return -(-length // LANES) * LANES


def _mask(time: int, slots: int, causal: bool, window: int | None) -> splash_attention_mask.Mask:
    if window is not None:
        return splash_attention_mask.LocalMask((time, slots), (window - 1, 0 if causal else window - 1), 0)
    if causal:
        return splash_attention_mask.CausalMask((time, slots))
    return splash_attention_mask.FullMask((time, slots))


def _block_sizes(time: int, slots: int) -> splash_attention_kernel.BlockSizes:
    """Take the largest blocks of at most BLOCK that divide the padded lengths."""

    def block(length: int) -> int:
        return next(size for size in range(min(BLOCK, length), 0, -LANES) if length % size == 0)

    q, kv = block(time), block(slots)
    return splash_attention_kernel.BlockSizes(
        block_q=q,
        block_kv=kv,
        block_kv_compute=kv,
        block_q_dkv=q,
        block_kv_dkv=kv,
        block_kv_dkv_compute=kv,
        block_q_dq=q,
        block_kv_dq=kv,
    )
