"""From logits or weights to token ids.

Where devices share a vocabulary, each works on its own part and no array of batch x vocabulary crosses them.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from podium.ops.blocks import find_block, find_inside, in_blocks
from podium.ops.choices import Implementation
from podium.ops.cpu import sampling as cpu
from podium.ops.platform import resolve
from podium.parallel.mesh import axis_size
from podium.parallel.sharding import MeshAxes, mesh_in_force, on_each_device, partition_spec


def first_highest(logits: jax.Array, implementation: Implementation) -> jax.Array:
    """The lowest id among the highest of each row [batch, vocab], int32."""
    if resolve(implementation) == "cpu" or _shards(logits) is not None:
        # In two plain reductions, of which the partitioner makes one of each part and one of the parts' results.
        return cpu.first_highest(logits)
    return jnp.argmax(logits, axis=-1).astype(jnp.int32)


def kth_highest(logits: jax.Array, k: int) -> jax.Array:
    """The k-th highest of each row [batch, vocab]; [batch, 1]. Over shards each gives its own k highest."""
    shards = _shards(logits)
    if shards is None:
        return jax.lax.top_k(logits, k)[0][:, -1:]

    def of_shard(part: jax.Array) -> jax.Array:
        own = jax.lax.top_k(part, min(k, part.shape[1]))[0]
        found = jax.lax.top_k(jax.lax.all_gather(own, shards.vocab, axis=1, tiled=True), k)[0][:, -1:]
        # All devices found the same, which the maximum tells the compiler.
        return jax.lax.pmax(found, shards.vocab)

    return shards.map(of_shard, logits)


def inverse_cdf(weights: jax.Array, uniform: jax.Array, implementation: Implementation) -> jax.Array:
    """Find for each row of weights [batch, vocab] the first token whose cumulative weight exceeds uniform * total.

    Weights are not negative, and need not add up to 1. A token of weight zero is never chosen. Over shards the search
    is that of a CPU, in sums of blocks and one block, and only the sums cross devices. The token is the same as of one
    device to the last bit where blocks are the same there: on a CPU, with a vocabulary whose shards are cut into blocks
    as the whole is. Elsewhere sums are made in another order, and a draw within their rounding of the edge between two
    tokens may give the other one.
    """
    shards = _shards(weights)
    if shards is not None:
        return shards.map(functools.partial(_inverse_cdf_of_shard, shards.vocab), weights, uniform)
    variant = cpu.inverse_cdf if resolve(implementation) == "cpu" else reference_inverse_cdf
    return variant(weights, uniform)


def reference_inverse_cdf(weights: jax.Array, uniform: jax.Array) -> jax.Array:
    """Write the formula down."""
    cumulative = jnp.cumsum(weights, axis=-1)
    # Sums that are made in parallel do not rise steadily: a token without weight may stand above the one before it.
    real = weights > 0
    total = jnp.max(jnp.where(real, cumulative, 0.0), axis=-1, keepdims=True)
    # uniform * total may be rounded up to total, which no sum exceeds.
    target = jnp.minimum(uniform[:, None] * total, total * (1 - jnp.finfo(jnp.float32).eps))
    return jnp.argmax((cumulative > target) & real, axis=-1).astype(jnp.int32)


class _Shards(NamedTuple):
    """How rows [batch, vocab] are cut over the mesh in force."""

    batch: MeshAxes
    vocab: MeshAxes

    def map(self, function: Callable[..., jax.Array], wide: jax.Array, *rows: jax.Array) -> jax.Array:
        """Run a function of a device's rows and its part of the vocabulary; gives [batch, ...]."""
        row = PartitionSpec(self.batch)
        specs = (PartitionSpec(self.batch, self.vocab), *(row for _ in rows))
        out: jax.Array = on_each_device(function, specs, row)(wide, *rows)
        return out


def _shards(wide: jax.Array) -> _Shards | None:
    """Say how an array [batch, vocab] is cut, None where devices do not share the vocabulary equally, or at all."""
    mesh = mesh_in_force()
    if mesh is None:
        return None
    batch, vocab = partition_spec(("batch", "vocab"), mesh)
    cut = axis_size(mesh, vocab) > 1
    divides = wide.shape[0] % axis_size(mesh, batch) == wide.shape[1] % axis_size(mesh, vocab) == 0
    return _Shards(batch, vocab) if cut and divides else None


def _inverse_cdf_of_shard(vocab: MeshAxes, weights: jax.Array, uniform: jax.Array) -> jax.Array:
    blocks = in_blocks(weights)
    sums = jax.lax.all_gather(jnp.sum(blocks, axis=-1), vocab, axis=1, tiled=True)
    block, distance = find_block(sums, uniform)
    shard, count = jax.lax.axis_index(vocab), blocks.shape[1]
    own = block - shard * count
    # Who does not hold the block looks at another, and adds nothing.
    offset = find_inside(blocks, jnp.clip(own, 0, count - 1), distance)
    id_here = shard * weights.shape[1] + own * blocks.shape[-1] + offset
    return jax.lax.psum(jnp.where((own >= 0) & (own < count), id_here, 0), vocab)
