"""Choosing tokens without operations that XLA's CPU backend runs one number at a time.

On a CPU a full sort of 64 x 32,000 logits takes 0.3 s and `jax.random.categorical` 70 ms; the inverse of the
cumulative distribution needs one uniform number per row.
"""

import jax
import jax.numpy as jnp

# Bounds of the width of the blocks in which the cumulative distribution is searched: the square root of a vocabulary.
_BLOCK = (64, 256)


def first_highest(wide: jax.Array) -> jax.Array:
    """As argmax over the last dimension.

    Two plain reductions, the first of which the log-probability needs too: XLA for CPUs compiles argmax, a reduction of
    pairs, without vector instructions. Where a row has a NaN, some id stands for it.
    """
    last = wide.shape[-1] - 1
    highest = jnp.max(wide, axis=-1, keepdims=True)
    return jnp.min(jnp.where(wide == highest, jnp.arange(last + 1, dtype=jnp.int32), last), axis=-1)


def inverse_cdf(weights: jax.Array, uniform: jax.Array) -> jax.Array:
    """As `podium.ops.sampling.reference_inverse_cdf`, in two levels: sums of blocks, then one block."""
    width = _block_width(weights.shape[1])
    blocks = jnp.pad(weights, ((0, 0), (0, -weights.shape[1] % width))).reshape(weights.shape[0], -1, width)
    ends = jnp.cumsum(jnp.sum(blocks, axis=-1), axis=-1)
    target = uniform * ends[:, -1]
    block = jnp.sum((ends <= target[:, None]).astype(jnp.int32), axis=-1)
    block = jnp.minimum(block, ends.shape[-1] - 1)
    before = jnp.where(block > 0, jnp.take_along_axis(ends, jnp.maximum(block - 1, 0)[:, None], axis=-1)[:, 0], 0.0)
    row = jnp.take_along_axis(blocks, block[:, None, None], axis=1)[:, 0]
    inside = jnp.cumsum(row, axis=-1)
    # Rounding may leave the target beyond the block's own sum: the last token with any weight then stands in.
    reachable = jnp.minimum(target - before, inside[:, -1] * (1 - jnp.finfo(jnp.float32).eps))
    offset = jnp.sum((inside <= reachable[:, None]).astype(jnp.int32), axis=-1)
    return block * width + jnp.minimum(offset, width - 1)


def _block_width(vocab: int) -> int:
    """The largest width that divides the vocabulary; where none does, the largest, and the last block is filled up."""
    narrow, wide = _BLOCK
    return next((width for width in range(wide, narrow - 1, -1) if vocab % width == 0), wide)
