"""A search in a cumulative distribution in two levels: sums of blocks, then one block.

On a CPU a full cumulative sum is slow; over a vocabulary that devices share, only the sums of blocks cross them.
"""

import jax
import jax.numpy as jnp

# Bounds of the width of a block: the square root of a vocabulary.
_BLOCK = (64, 256)


def in_blocks(weights: jax.Array) -> jax.Array:
    """Cut weights [batch, vocab] into [batch, blocks, width]; where no width divides, the last block is filled up."""
    width = _width(weights.shape[1])
    return jnp.pad(weights, ((0, 0), (0, -weights.shape[1] % width))).reshape(weights.shape[0], -1, width)


def find_block(sums: jax.Array, uniform: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Find the block in whose part of the sums [batch, blocks] uniform * total lies, and how far in; each [batch]."""
    ends = jnp.cumsum(sums, axis=-1)
    target = uniform * ends[:, -1]
    block = jnp.sum((ends <= target[:, None]).astype(jnp.int32), axis=-1)
    block = jnp.minimum(block, ends.shape[-1] - 1)
    before = jnp.where(block > 0, jnp.take_along_axis(ends, jnp.maximum(block - 1, 0)[:, None], axis=-1)[:, 0], 0.0)
    return block, target - before


def find_inside(blocks: jax.Array, block: jax.Array, distance: jax.Array) -> jax.Array:
    """Find the place in its block where the cumulative weight exceeds `distance`; int32 [batch]."""
    row = jnp.take_along_axis(blocks, block[:, None, None], axis=1)[:, 0]
    inside = jnp.cumsum(row, axis=-1)
    # Rounding may leave the target beyond the block's own sum: the last token with any weight then stands in.
    reachable = jnp.minimum(distance, inside[:, -1] * (1 - jnp.finfo(jnp.float32).eps))
    offset = jnp.sum((inside <= reachable[:, None]).astype(jnp.int32), axis=-1)
    return jnp.minimum(offset, row.shape[-1] - 1)


def _width(vocab: int) -> int:
    """The largest width that divides the vocabulary; where none does, the largest, and the last block is filled up."""
    narrow, wide = _BLOCK
    return next((width for width in range(wide, narrow - 1, -1) if vocab % width == 0), wide)
