"""Attention in the order of products that XLA for CPUs runs fast, with backward passes to match."""

from typing import NamedTuple, Self

import jax
import jax.numpy as jnp

from podium.ops.types import KeyValues, KVCache


class SidewaysCache(NamedTuple):
    """What decode steps look at: keys [batch, kv_heads, head_dim, slots] and values [batch, kv_heads, slots, head_dim].

    Heads come before slots, so that a step is one batched product over contiguous memory. Keys stand on their side:
    XLA for CPUs would copy the others into this order for every token, which took as long as the product itself.
    """

    keys: jax.Array
    values: jax.Array

    @classmethod
    def of(cls, memory: KeyValues) -> Self:
        """Turn keys and values, stacked or not."""
        return cls(jnp.swapaxes(memory.keys, -1, -2), memory.values)

    def write(self, new: KeyValues, slot: jax.Array) -> Self:
        """Put the keys and values of new tokens where `slot` (a scalar) says."""
        zero = jnp.zeros((), slot.dtype)
        keys = jnp.swapaxes(new.keys, 2, 3).astype(self.keys.dtype)
        values = new.values.astype(self.values.dtype)
        return type(self)(
            jax.lax.dynamic_update_slice(self.keys, keys, (zero, zero, zero, slot)),
            jax.lax.dynamic_update_slice(self.values, values, (zero, zero, slot, zero)),
        )


def attention(
    query: jax.Array,
    memory: KeyValues | KVCache | SidewaysCache,
    mask: jax.Array,
    *,
    scale: float,
    softcap: float | None = None,
    bias: jax.Array | None = None,
) -> jax.Array:
    """As `podium.ops.attention.reference`."""
    batch, time, heads, head_dim = query.shape
    kv_heads, slots = memory.values.shape[1:3]
    groups = heads // kv_heads
    # The small query is brought into the order of the products, so that no array of queries x slots is ever transposed,
    # in the backward pass neither: on a CPU that cost more than all products of a small model.
    grouped = jnp.transpose(query.reshape(batch, time, kv_heads, groups, head_dim), (0, 2, 3, 1, 4))
    rows = grouped.reshape(batch, kv_heads, groups * time, head_dim)
    if isinstance(memory, SidewaysCache):
        scores = jnp.einsum("bkrh,bkhs->bkrs", rows, memory.keys)
    else:
        scores = _scores(rows, memory.keys)
    scores = (scores.astype(jnp.float32) * scale).reshape(batch, kv_heads, groups, time, slots)
    if softcap is not None:
        scores = softcap * jnp.tanh(scores / softcap)
    if bias is not None:
        scores = scores + bias.reshape(1, kv_heads, groups, time, slots)
    scores = jnp.where(mask[:, None, None, :, :], scores, jnp.finfo(jnp.float32).min)
    mixed = _mix(scores.reshape(batch, kv_heads, groups * time, slots), memory.values).reshape(grouped.shape)
    return jnp.transpose(mixed, (0, 3, 1, 2, 4)).reshape(batch, time, heads, head_dim)


@jax.custom_vjp
def _scores(rows: jax.Array, keys: jax.Array) -> jax.Array:
    """Products [batch, kv_heads, rows, slots] of rows and keys; its own backward pass for the sake of `_over_rows`."""
    return jnp.einsum("bkrh,bksh->bkrs", rows, keys)


def _scores_backward(kept: tuple[jax.Array, jax.Array], slope: jax.Array) -> tuple[jax.Array, jax.Array]:
    rows, keys = kept
    return jnp.einsum("bkrs,bksh->bkrh", slope, keys), _over_rows(slope, rows)


_scores.defvjp(lambda rows, keys: (_scores(rows, keys), (rows, keys)), _scores_backward)


def _over_rows(wide: jax.Array, narrow: jax.Array) -> jax.Array:
    """Sum over rows of wide [batch, kv_heads, rows, slots] times narrow [.., rows, head_dim]; [.., slots, head_dim].

    The narrow operand and the result are what is transposed, behind barriers: moved into the product by XLA for CPUs
    they take it from its fast kernels, to three times the time.
    """
    turned = jax.lax.optimization_barrier(jnp.swapaxes(narrow, -1, -2))
    product = jax.lax.optimization_barrier(jnp.einsum("bkhr,bkrs->bkhs", turned, wide))
    return jnp.swapaxes(product, -1, -2)


@jax.custom_vjp
def _mix(scores: jax.Array, values: jax.Array) -> jax.Array:
    """Softmax of float32 scores [batch, kv_heads, rows, slots] times values; [batch, kv_heads, rows, head_dim].

    The backward pass needs the sum of each row of weights times their gradients. It is that of the result times its
    gradient (Dao et al. 2022, arXiv 2205.14135, appendix B.2), over head_dim numbers instead of all slots.
    """
    return _mix_forward(scores, values)[0]


def _mix_forward(scores: jax.Array, values: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array, jax.Array]]:
    weights = jax.nn.softmax(scores, axis=-1).astype(values.dtype)
    mixed = jnp.einsum("bkrs,bksh->bkrh", weights, values)
    return mixed, (weights, values, mixed)


def _mix_backward(kept: tuple[jax.Array, jax.Array, jax.Array], slope: jax.Array) -> tuple[jax.Array, jax.Array]:
    weights, values, mixed = kept
    of_weights = jnp.einsum("bkrh,bksh->bkrs", slope, values).astype(jnp.float32)
    row = jnp.sum(slope.astype(jnp.float32) * mixed.astype(jnp.float32), axis=-1, keepdims=True)
    return weights.astype(jnp.float32) * (of_weights - row), _over_rows(weights, slope)


_mix.defvjp(_mix_forward, _mix_backward)
