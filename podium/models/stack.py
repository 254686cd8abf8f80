"""Run stacks of blocks: scanned or layer by layer, with adapters on the last ones, with caches or without."""

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from podium.models.attention import Attention, Context
from podium.models.config import BlockConfig
from podium.models.layers import MLP, Norm
from podium.models.lora import LoraSpec, overlay
from podium.models.parts import Build, bind
from podium.models.remat import rematerialised
from podium.models.text import ForwardOutput
from podium.ops.attention import LayerCache, Memory
from podium.ops.loops import scan_unrolled
from podium.ops.types import Alternating, Visibility
from podium.parallel.sharding import constrain

Tree = Any
Caches = Any  # a pytree per layer: stacked along a leading layers dimension, or a tuple with one per layer


class Contexts(NamedTuple):
    """The context of ordinary layers, and that of sliding ones, None where no layer is one."""

    full: Context
    local: Context | None = None


class Block(nnx.Module):
    """Residual block: x + attention(norm(x)), then x + mlp(norm(x)); or as the config places norms and branches."""

    def __init__(self, config: BlockConfig, lora: LoraSpec | None, rngs: nnx.Rngs):
        self.attention_norm = Norm(config)
        self.attention = Attention(config, lora, rngs=rngs)
        self.mlp_norm = None if config.parallel_block else Norm(config)
        self.mlp = MLP(config, lora, rngs=rngs)
        self.attention_post_norm = Norm(config) if config.sandwich_norms else None
        self.mlp_post_norm = Norm(config) if config.sandwich_norms else None

    def __call__(self, x: jax.Array, context: Context, cache: LayerCache | None) -> tuple[jax.Array, Memory]:
        normed = self.attention_norm(x)
        mixed, memory = self.attention(normed, context, cache)
        if self.mlp_norm is None:
            return constrain(x + mixed + self.mlp(normed), "batch", "time", "activation"), memory
        x = x + (mixed if self.attention_post_norm is None else self.attention_post_norm(mixed))
        added = self.mlp(self.mlp_norm(x))
        x = x + (added if self.mlp_post_norm is None else self.mlp_post_norm(added))
        return constrain(x, "batch", "time", "activation"), memory


class Span(NamedTuple):
    """A stack of `total` blocks; those from `adapted` on have the adapter.

    build: the part that the blocks are; sliding: per layer, whether it takes the local context.
    """

    build: Build
    config: Any
    lora: LoraSpec | None
    total: int
    adapted: int
    sliding: tuple[bool, ...] = ()


def run(
    span: Span,
    blocks: Tree,
    adapter: Tree | None,
    x: jax.Array,
    contexts: Any,
    caches: Caches | None = None,
    *,
    first: int = 0,
    trunk_layers: int = 0,
    keep: bool = False,
) -> ForwardOutput:
    """Run the layers from `first` on: those below the adapter's as they are, the others with it.

    `keep` returns the keys and values of the layers, in the form of the blocks; `trunk_layers` above 0 the states
    behind so many layers.
    """
    total, adapted = span.total, span.adapted
    kept: Caches | None = None
    trunk_states = None
    edges = {edge for edge in (trunk_layers, adapted) if first < edge < total}
    for low, high in itertools.pairwise(sorted({first, total} | edges)):
        spec = span.lora if low >= adapted else None
        part = _layers(blocks, low, high, total)
        if spec is not None and adapter:
            extra = _layers(adapter, low - adapted, high - adapted, total - adapted)
            pairs = zip(part, extra, strict=True) if isinstance(part, tuple) else ()
            part = tuple(overlay(*pair) for pair in pairs) or overlay(part, extra)
        cache = None if caches is None else _layers(caches, low, high, total)
        layer = _layer(span._replace(lora=spec), contexts, keep=keep)
        x, memories = _run_layers(layer, part, x, cache, span.sliding[low:high], span.config, keep=keep)
        kept = _join(kept, memories)
        trunk_states = x if high == trunk_layers else trunk_states
    return ForwardOutput(x, kept, trunk_states)


def _layer(span: Span, contexts: Any, *, keep: bool) -> Callable[..., tuple[jax.Array, Any]]:
    def layer(x: jax.Array, weights: Tree, cache: Any, slides: Any) -> tuple[jax.Array, Any]:
        context = _pick(contexts, slides) if isinstance(contexts, Contexts) else contexts
        x, memory = bind(span.build, span.config, span.lora, weights)(x, context, cache)
        return x, memory if keep else None

    return layer


def _pick(contexts: Contexts, slides: Any) -> Context:
    """The context of one layer; `slides` is a Python bool, or traced where layers are scanned."""
    full, local = contexts
    if local is None or slides is False:
        return full
    if slides is True:
        return local

    def choose(one: jax.Array | None, other: jax.Array | None) -> jax.Array | None:
        # What both share is not selected.
        return one if one is other or one is None or other is None else jnp.where(slides, other, one)

    assert isinstance(full.visible, Visibility) and isinstance(local.visible, Visibility), "not yet chosen"
    visible = Alternating(slides, full.visible, local.visible)
    return full._replace(visible=visible, cos=choose(full.cos, local.cos), sin=choose(full.sin, local.sin))


def _run_layers(
    layer: Callable[..., tuple[jax.Array, Any]],
    blocks: Tree,
    x: jax.Array,
    caches: Caches | None,
    sliding: tuple[bool, ...],
    config: BlockConfig,
    *,
    keep: bool,
) -> tuple[jax.Array, Caches | None]:
    unstacked = isinstance(blocks, tuple)
    unrolled = unstacked or scan_unrolled(jax.tree.leaves(blocks)[0].shape[0], config.implementation)
    if not keep:
        # With keys and values kept there is no backward pass.
        layer = rematerialised(layer, config.remat, looped=not unrolled)
    if unstacked:
        kept = []
        for index, weights in enumerate(blocks):
            cache = None if caches is None else caches[index]
            x, memory = layer(x, weights, cache, sliding[index] if sliding else False)
            kept.append(memory)
        return x, tuple(kept) if keep else None
    flags = jnp.asarray(sliding) if any(sliding) else None
    return jax.lax.scan(
        lambda carry, xs: layer(carry, xs[0], xs[1], False if xs[2] is None else xs[2]),
        x,
        (blocks, caches, flags),
        unroll=unrolled,
    )


def _layers(blocks: Tree, first: int, last: int, total: int) -> Tree:
    """Layers first .. last - 1 of a stacked tree or of a tuple, caches alike."""
    if _is_tuple(blocks):
        return blocks[first:last]
    return blocks if (first, last) == (0, total) else jax.tree.map(lambda leaf: leaf[first:last], blocks)


def _is_tuple(tree: Any) -> bool:
    """A tuple of layers, as opposed to one named tuple of stacked arrays."""
    return type(tree) is tuple


def _join(first: Caches | None, second: Caches | None) -> Caches | None:
    if first is None or second is None:
        return second if first is None else first
    if _is_tuple(first):
        return (*first, *second)
    return jax.tree.map(lambda x, y: jnp.concatenate([x, y]), first, second)
