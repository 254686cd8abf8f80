"""Grouped-query attention (Ainslie et al. 2023, arXiv 2305.13245) over explicit keys, values and masks."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from podium.models.config import BlockConfig
from podium.models.layers import Linear, Norm
from podium.models.lora import LoraSpec
from podium.models.rope import rotate


class KeyValues(NamedTuple):
    """Keys and values of one layer, each [batch, kv_heads, slots, head_dim]; stacked ones lead with layers."""

    keys: jax.Array
    values: jax.Array

    def scores(self, rows: jax.Array) -> jax.Array:
        """Products [batch, kv_heads, rows, slots] of rows [batch, kv_heads, rows, head_dim] with all keys."""
        return _scores(rows, self.keys)


class Cached(NamedTuple):
    """What decode steps look at: keys [batch, kv_heads, head_dim, slots] and values [batch, kv_heads, slots, head_dim].

    Heads come before slots, so that a step is one batched product over contiguous memory. Keys stand on their side:
    XLA for CPUs would copy the others into this order for every token, which took as long as the product itself.
    """

    keys: jax.Array
    values: jax.Array

    def scores(self, rows: jax.Array) -> jax.Array:
        """As those of `KeyValues`."""
        return jnp.einsum("bkrh,bkhs->bkrs", rows, self.keys)


def open_caches(memories: Any, room: int) -> Any:
    """Turn each KeyValues of a tree, stacked or not, into a cache with room for so many more tokens."""

    def opened(memory: KeyValues) -> Cached:
        wider = jax.tree.map(lambda x: jnp.pad(x, [(0, 0)] * (x.ndim - 2) + [(0, room), (0, 0)]), memory)
        return Cached(jnp.swapaxes(wider.keys, -1, -2), wider.values)

    return jax.tree.map(opened, memories, is_leaf=lambda node: isinstance(node, KeyValues))


class Context(NamedTuple):
    """What the attention of every layer of one call shares.

    mask: boolean [batch, time, slots], true = may be looked at; cos, sin: [batch, time, head_dim / 2], None where
    nothing is rotated; bias: float32 [heads, time, slots], added to scores, None where there is none;
    slot: where in the cache the call's own keys go, None when there is no cache.
    """

    mask: jax.Array
    cos: jax.Array | None = None
    sin: jax.Array | None = None
    bias: jax.Array | None = None
    slot: jax.Array | None = None


def attend(
    query: jax.Array,
    memory: KeyValues | Cached,
    mask: jax.Array,
    *,
    scale: float,
    softcap: float | None = None,
    bias: jax.Array | None = None,
) -> jax.Array:
    """Softmax attention of query [batch, time, heads, head_dim]; the softmax is float32. Same shape out.

    Scores are multiplied by `scale`, drawn into (-softcap, softcap) by a tangent, then moved by `bias`.
    A query that may look at nothing (padding) gets the mean of all values: finite, and read by nobody.
    """
    batch, time, heads, head_dim = query.shape
    kv_heads, slots = memory.values.shape[1:3]
    groups = heads // kv_heads
    # The small query is brought into the order of the products, so that no array of queries x slots is ever transposed,
    # in the backward pass neither: on a CPU that cost more than all products of a small model.
    grouped = jnp.transpose(query.reshape(batch, time, kv_heads, groups, head_dim), (0, 2, 3, 1, 4))
    rows = grouped.reshape(batch, kv_heads, groups * time, head_dim)
    scores = memory.scores(rows).astype(jnp.float32) * scale
    scores = scores.reshape(batch, kv_heads, groups, time, slots)
    if softcap is not None:
        scores = softcap * jnp.tanh(scores / softcap)
    if bias is not None:
        scores = scores + bias.reshape(1, kv_heads, groups, time, slots)
    scores = jnp.where(mask[:, None, None, :, :], scores, jnp.finfo(jnp.float32).min)
    mixed = _weigh(scores.reshape(batch, kv_heads, groups * time, slots), memory.values).reshape(grouped.shape)
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
def _weigh(scores: jax.Array, values: jax.Array) -> jax.Array:
    """Softmax of float32 scores [batch, kv_heads, rows, slots] times values; [batch, kv_heads, rows, head_dim].

    The backward pass needs the sum of each row of weights times their gradients. It is that of the result times its
    gradient (Dao et al. 2022, arXiv 2205.14135, appendix B.2), over head_dim numbers instead of all slots.
    """
    return _weigh_forward(scores, values)[0]


def _weigh_forward(scores: jax.Array, values: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array, jax.Array]]:
    weights = jax.nn.softmax(scores, axis=-1).astype(values.dtype)
    mixed = jnp.einsum("bkrs,bksh->bkrh", weights, values)
    return mixed, (weights, values, mixed)


def _weigh_backward(kept: tuple[jax.Array, jax.Array, jax.Array], slope: jax.Array) -> tuple[jax.Array, jax.Array]:
    weights, values, mixed = kept
    of_weights = jnp.einsum("bkrh,bksh->bkrs", slope, values).astype(jnp.float32)
    row = jnp.sum(slope.astype(jnp.float32) * mixed.astype(jnp.float32), axis=-1, keepdims=True)
    return weights.astype(jnp.float32) * (of_weights - row), _over_rows(weights, slope)


_weigh.defvjp(_weigh_forward, _weigh_backward)


class Attention(nnx.Module):
    """Project, normalise and rotate where configured, write to the cache where there is one, attend, project back."""

    def __init__(self, config: BlockConfig, lora: LoraSpec | None, *, rngs: nnx.Rngs):
        def linear(name: str, inputs: dict[str, int], outputs: dict[str, int]) -> Linear:
            rank, scale = (lora.rank(name), lora.scale) if lora else (0, 0.0)
            bias = config.output_bias if name == "o_proj" else config.attention_bias
            return Linear(inputs, outputs, bias=bias, rank=rank, scale=scale, dtype=config.dtype, rngs=rngs)

        self.scale, self.softcap = config.score_scale, config.attention_softcap
        self.interleaved = config.rope_interleaved
        width = {"embed": config.embed}
        self.q_proj = linear("q_proj", width, {"heads": config.heads, "head_dim": config.head_dim})
        self.k_proj = linear("k_proj", width, {"kv_heads": config.kv_heads, "head_dim": config.head_dim})
        self.v_proj = linear("v_proj", width, {"kv_heads": config.kv_heads, "head_dim": config.head_dim})
        self.o_proj = linear("o_proj", {"heads": config.heads, "head_dim": config.head_dim}, width)
        self.q_norm = Norm(config, config.head_dim, kind="rms") if config.qk_norm else None
        self.k_norm = Norm(config, config.head_dim, kind="rms") if config.qk_norm else None

    def __call__(self, x: jax.Array, context: Context, cache: Cached | None) -> tuple[jax.Array, KeyValues | Cached]:
        query, key = self.q_proj(x), self.k_proj(x)
        if self.q_norm is not None and self.k_norm is not None:
            query, key = self.q_norm(query), self.k_norm(key)
        if context.cos is not None and context.sin is not None:
            query = rotate(query, context.cos, context.sin, interleaved=self.interleaved)
            key = rotate(key, context.cos, context.sin, interleaved=self.interleaved)
        own = KeyValues(jnp.swapaxes(key, 1, 2), jnp.swapaxes(self.v_proj(x), 1, 2))
        memory = own if cache is None else _write(cache, own, context.slot)
        return self._mix(query, memory, context), memory

    def project_kv(self, states: jax.Array) -> KeyValues:
        """Keys and values of states [batch, time, embed] that another stack attends to."""
        return KeyValues(jnp.swapaxes(self.k_proj(states), 1, 2), jnp.swapaxes(self.v_proj(states), 1, 2))

    def cross_attend(self, x: jax.Array, memory: KeyValues | Cached, context: Context) -> jax.Array:
        """Attend to what `project_kv` gave, or to the cache that it became."""
        return self._mix(self.q_proj(x), memory, context)

    def _mix(self, query: jax.Array, memory: KeyValues | Cached, context: Context) -> jax.Array:
        mixed = attend(query, memory, context.mask, scale=self.scale, softcap=self.softcap, bias=context.bias)
        return self.o_proj(mixed)


def _write(cache: Cached, own: KeyValues, slot: jax.Array | None) -> Cached:
    assert slot is not None, "a call with a cache says where its keys go"
    zero = jnp.zeros((), slot.dtype)
    keys = jnp.swapaxes(own.keys, 2, 3).astype(cache.keys.dtype)
    return Cached(
        jax.lax.dynamic_update_slice(cache.keys, keys, (zero, zero, zero, slot)),
        jax.lax.dynamic_update_slice(cache.values, own.values.astype(cache.values.dtype), (zero, zero, slot, zero)),
    )
