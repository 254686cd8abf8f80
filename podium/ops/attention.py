"""Grouped-query attention (Ainslie et al. 2023, arXiv 2305.13245): the formula, and the choice of a kernel for it."""

from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from podium.ops.choices import Implementation
from podium.ops.cpu import attention as cpu
from podium.ops.cpu.attention import SidewaysCache
from podium.ops.platform import Platform, notice, resolve
from podium.ops.types import RESIDUALS, Alternating, KeyValues, KVCache, Visibility

Memory = KeyValues | KVCache | SidewaysCache
LayerCache = KVCache | SidewaysCache


def open_caches(memories: Any, room: int, implementation: Implementation) -> Any:
    """Turn each KeyValues of a tree, stacked or not, into a cache with room for so many more tokens."""

    def opened(memory: KeyValues) -> LayerCache:
        wider = KeyValues(*(jnp.pad(x, [(0, 0)] * (x.ndim - 2) + [(0, room), (0, 0)]) for x in memory))
        return SidewaysCache.of(wider) if resolve(implementation) == "cpu" else KVCache(*wider)

    return jax.tree.map(opened, memories, is_leaf=lambda node: isinstance(node, KeyValues))


def attention(
    query: jax.Array,
    memory: Memory,
    visible: Visibility | Alternating,
    *,
    scale: float,
    softcap: float | None = None,
    bias: jax.Array | None = None,
    implementation: Implementation,
) -> jax.Array:
    """Softmax attention of query [batch, time, heads, head_dim]; the softmax is float32. Same shape out.

    Scores are multiplied by `scale`, drawn into (-softcap, softcap) by a tangent, then moved by `bias`, float32
    [heads, time, slots]. A query that may look at nothing (padding) gets something finite, which nobody reads.
    """
    platform = resolve(implementation)
    if platform in ("gpu", "tpu") and isinstance(memory, KeyValues):
        kernel = _kernel(platform)
        views = visible[1:] if isinstance(visible, Alternating) else (visible,)
        reason = next(filter(None, (kernel.refuses(query, view, softcap=softcap, bias=bias) for view in views)), None)
        if reason is None:
            return _by_kernel(kernel, query, memory, visible, scale=scale, softcap=softcap)
        notice(platform, "attention", reason)
    plain = cpu.attention if platform == "cpu" else reference
    mask = visible.mask() if isinstance(visible, Alternating) else visible.mask
    return checkpoint_name(plain(query, memory, mask, scale=scale, softcap=softcap, bias=bias), RESIDUALS)


def reference(
    query: jax.Array,
    memory: Memory,
    mask: jax.Array,
    *,
    scale: float,
    softcap: float | None = None,
    bias: jax.Array | None = None,
) -> jax.Array:
    """Write the formula down; mask: boolean [batch, time or 1, slots]."""
    assert not isinstance(memory, SidewaysCache), "a cache is opened and read by one implementation"
    batch, time, heads, head_dim = query.shape
    kv_heads, slots = memory.values.shape[1:3]
    grouped = query.reshape(batch, time, kv_heads, heads // kv_heads, head_dim)
    scores = jnp.einsum("btkgh,bksh->bkgts", grouped, memory.keys, preferred_element_type=jnp.float32) * scale
    if softcap is not None:
        scores = softcap * jnp.tanh(scores / softcap)
    if bias is not None:
        scores = scores + bias.reshape(1, kv_heads, heads // kv_heads, time, slots)
    scores = jnp.where(mask[:, None, None], scores, jnp.finfo(jnp.float32).min)
    weights = jax.nn.softmax(scores, axis=-1).astype(memory.values.dtype)
    return jnp.einsum("bkgts,bksh->btkgh", weights, memory.values).reshape(query.shape)


def _kernel(platform: Platform) -> ModuleType:
    """Import the kernel's module where it is used: Pallas alone takes as long to import as JAX."""
    if platform == "tpu":
        from podium.ops.tpu import attention as tpu

        return tpu
    from podium.ops.gpu import attention as gpu

    return gpu


def _by_kernel(
    kernel: ModuleType, query: jax.Array, memory: KeyValues, visible: Visibility | Alternating, **options: Any
) -> jax.Array:
    """Kernels are compiled for one window: where layers of a scan alternate, both are, and each layer runs one."""
    if not isinstance(visible, Alternating):
        out: jax.Array = kernel.attention(query, memory, visible, **options)
        return out
    chosen: jax.Array = jax.lax.cond(
        visible.slides,
        lambda: kernel.attention(query, memory, visible.local, **options),
        lambda: kernel.attention(query, memory, visible.full, **options),
    )
    return chosen
