"""The decoder-only transformer: nnx modules define its parts, plain nested dicts of arrays carry its parameters.

A parameter tree is {"embedder", "blocks", "final_norm"[, "lm_head"]}. Blocks are stacked (every leaf leads with
`layers`) and scanned, so that compile time does not grow with depth; `unstack` gives a tuple of single layers, which
a decode loop on a CPU runs faster (no slice of the weights is copied per token).
"""

import functools
import itertools
import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from podium.models.attention import Attention, Context, KeyValues
from podium.models.config import TransformerConfig
from podium.models.layers import INIT_STD, MLP, RMSNorm
from podium.models.lora import LoraSpec, overlay
from podium.models.rope import rope_tables
from podium.parallel.sharding import Axes, constrain

# So few layers are unrolled: a scan copies what the backward pass keeps into arrays for all layers, and out again.
MAX_UNROLLED = 8

Tree = Any
Caches = Any  # KeyValues with a leading layers dimension, or a tuple of KeyValues


class Block(nnx.Module):
    """Pre-norm residual block: x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, config: TransformerConfig, lora: LoraSpec | None, *, rngs: nnx.Rngs):
        self.attention_norm = RMSNorm(config)
        self.attention = Attention(config, lora, rngs=rngs)
        self.mlp_norm = RMSNorm(config)
        self.mlp = MLP(config, lora, rngs=rngs)

    def __call__(self, x: jax.Array, context: Context, cache: KeyValues | None) -> tuple[jax.Array, KeyValues]:
        mixed, memory = self.attention(self.attention_norm(x), context, cache)
        x = x + mixed
        x = constrain(x + self.mlp(self.mlp_norm(x)), "batch", "time", "activation")
        return x, memory


class Embedder(nnx.Module):
    """Token table [vocab, embed]; its transpose is the output head of a tied model."""

    def __init__(self, config: TransformerConfig, *, rngs: nnx.Rngs):
        shape = (config.vocab_size, config.embed)
        table = INIT_STD * jax.random.normal(rngs.params(), shape, jnp.float32)
        self.table = nnx.Param(table, axes=("vocab", "embed"))


class Head(nnx.Module):
    """Output kernel [embed, vocab] of an untied model."""

    def __init__(self, config: TransformerConfig, *, rngs: nnx.Rngs):
        shape = (config.embed, config.vocab_size)
        kernel = INIT_STD * jax.random.normal(rngs.params(), shape, jnp.float32)
        self.kernel = nnx.Param(kernel, axes=("embed", "vocab"))


def _parts(config: TransformerConfig, lora: LoraSpec | None) -> dict[str, Callable[[nnx.Rngs], nnx.Module]]:
    parts: dict[str, Callable[[nnx.Rngs], nnx.Module]] = {
        "embedder": lambda rngs: Embedder(config, rngs=rngs),
        "blocks": lambda rngs: Block(config, lora, rngs=rngs),
        "final_norm": lambda _: RMSNorm(config),
    }
    if not config.tie_embeddings:
        parts["lm_head"] = lambda rngs: Head(config, rngs=rngs)
    return parts


@functools.lru_cache(maxsize=64)
def _graph(config: TransformerConfig, lora: LoraSpec | None, part: str) -> tuple[nnx.GraphDef[Any], nnx.State]:
    """The static structure of a part and its abstract state (shapes and axes; no memory)."""
    build = _parts(config, lora)[part]
    graphdef, state = nnx.split(nnx.eval_shape(lambda: build(nnx.Rngs(0))))
    return graphdef, state


def _bind(config: TransformerConfig, lora: LoraSpec | None, part: str, tree: Tree) -> Any:
    return nnx.merge(_graph(config, lora, part)[0], nnx.State(tree))


def init_params(config: TransformerConfig, key: jax.Array, lora: LoraSpec | None = None) -> tuple[Tree, Tree]:
    """Draw fresh parameters; returns (base tree, adapter tree), the adapter {} without lora. Blocks are stacked."""

    def draw(part: str, key: jax.Array) -> tuple[Tree, Tree]:
        module = _parts(config, lora)[part](nnx.Rngs(key))
        _, *states = nnx.split(module, nnx.LoRAParam, ...)
        adapter, base = states
        return nnx.to_pure_dict(base), nnx.to_pure_dict(adapter)

    params, adapters = {}, {}
    for number, part in enumerate(_parts(config, lora)):
        part_key = jax.random.fold_in(key, number)
        if part == "blocks":
            params[part], adapter = jax.vmap(lambda k: draw("blocks", k))(jax.random.split(part_key, config.layers))
            if lora:
                adapted = operator.itemgetter(slice(lora.first_layer(config.layers), None))
                adapters = {"blocks": jax.tree.map(adapted, adapter)}
        else:
            params[part], _ = draw(part, part_key)
    return params, adapters


def init_adapter(config: TransformerConfig, lora: LoraSpec, key: jax.Array) -> Tree:
    """Draw a fresh adapter tree: A uniform, B zero, so that the adapted model starts equal to its base."""
    return jax.jit(lambda k: init_params(config, k, lora)[1])(key)


def parameter_axes(config: TransformerConfig, lora: LoraSpec | None = None) -> tuple[Tree, Tree]:
    """Logical axes of every leaf of the base tree and of the adapter tree."""

    def axes_of(state: nnx.State, stacked: bool) -> Tree:
        lead: Axes = ("layers",) if stacked else ()
        named = jax.tree.map(
            lambda leaf: lead + tuple(leaf.get_metadata()["axes"]), state, is_leaf=lambda x: isinstance(x, nnx.Variable)
        )
        return nnx.to_pure_dict(named)

    base, adapters = {}, {}
    for part in _parts(config, lora):
        adapter_state, base_state = nnx.split_state(_graph(config, lora, part)[1], nnx.LoRAParam, ...)
        base[part] = axes_of(base_state, part == "blocks")
        if part == "blocks" and lora:
            adapters["blocks"] = axes_of(adapter_state, True)
    return base, adapters


def abstract_params(config: TransformerConfig, lora: LoraSpec | None = None) -> tuple[Tree, Tree]:
    """Shapes and dtypes of (base tree, adapter tree) without allocating memory."""
    return jax.eval_shape(lambda: init_params(config, jax.random.key(0), lora))


def unstack(tree: Tree) -> tuple[Tree, ...]:
    """Turn a stacked tree into a tuple of single-layer trees."""
    layers = jax.tree.leaves(tree)[0].shape[0]
    return tuple(jax.tree.map(lambda leaf, index=index: leaf[index], tree) for index in range(layers))


def positions_from_mask(mask: jax.Array) -> jax.Array:
    """Count real tokens from 0 along each row [batch, time]; padding gets 0, wherever it stands."""
    return jnp.maximum(jnp.cumsum(mask.astype(jnp.int32), axis=1) - 1, 0)


def _run_blocks(
    config: TransformerConfig,
    lora: LoraSpec | None,
    blocks: Tree,
    x: jax.Array,
    context: Context,
    caches: Caches | None,
    *,
    keep: bool,
    remat: bool,
) -> tuple[jax.Array, Caches | None]:
    """Run all layers; `keep` returns their keys and values in the form of the blocks (stacked or a tuple)."""

    def layer(x: jax.Array, weights: Tree, cache: KeyValues | None) -> tuple[jax.Array, KeyValues | None]:
        x, memory = _bind(config, lora, "blocks", weights)(x, context, cache)
        return x, memory if keep else None

    if remat:
        layer = jax.checkpoint(layer, policy=jax.checkpoint_policies.nothing_saveable)
    if isinstance(blocks, tuple):
        kept = []
        for index, weights in enumerate(blocks):
            x, memory = layer(x, weights, None if caches is None else caches[index])
            kept.append(memory)
        return x, tuple(kept) if keep else None
    count = jax.tree.leaves(blocks)[0].shape[0]
    return jax.lax.scan(lambda carry, xs: layer(carry, *xs), x, (blocks, caches), unroll=count <= MAX_UNROLLED)


def _layers(blocks: Tree, first: int, last: int, total: int) -> Tree:
    """Layers first .. last - 1 of a stacked tree or of a tuple, caches alike."""
    if isinstance(blocks, tuple) and not isinstance(blocks, KeyValues):
        return blocks[first:last]
    return blocks if (first, last) == (0, total) else jax.tree.map(lambda leaf: leaf[first:last], blocks)


def _join(first: Caches | None, second: Caches | None) -> Caches | None:
    if first is None or second is None:
        return second if first is None else first
    if isinstance(first, KeyValues):
        return jax.tree.map(lambda x, y: jnp.concatenate([x, y]), first, second)
    return (*first, *second)


class Passed(NamedTuple):
    """What came out of some layers: the residual stream, keys and values, and the stream behind the first `tap`."""

    x: jax.Array
    caches: Caches | None
    lower: jax.Array | None


def _span(
    config: TransformerConfig,
    params: Tree,
    adapter: Tree | None,
    lora: LoraSpec | None,
    x: jax.Array,
    context: Context,
    caches: Caches | None = None,
    *,
    first: int = 0,
    tap: int = 0,
    keep: bool = False,
    remat: bool = False,
) -> Passed:
    """Run the layers from `first` on: those below the adapter's as they are, the others with it."""
    total = config.layers
    adapted = lora.first_layer(total) if adapter and lora else total
    kept: Caches | None = None
    lower = None
    inner = {cut for cut in (tap, adapted) if first < cut < total}
    for low, high in itertools.pairwise(sorted({first, total} | inner)):
        spec = lora if low >= adapted else None
        blocks = _layers(params["blocks"], low, high, total)
        if spec is not None and adapter:
            extra = _layers(adapter["blocks"], low - adapted, high - adapted, total - adapted)
            pairs = zip(blocks, extra, strict=True) if isinstance(blocks, tuple) else ()
            blocks = tuple(overlay(*pair) for pair in pairs) or overlay(blocks, extra)
        part = None if caches is None else _layers(caches, low, high, total)
        x, memories = _run_blocks(config, spec, blocks, x, context, part, keep=keep, remat=remat)
        kept = _join(kept, memories)
        lower = x if high == tap else lower
    return Passed(x, kept, lower)


def _embed(config: TransformerConfig, params: Tree, ids: jax.Array) -> jax.Array:
    x = jnp.take(params["embedder"]["table"], ids, axis=0).astype(config.dtype)
    return constrain(x, "batch", "time", "activation")


def _norm(config: TransformerConfig, params: Tree, x: jax.Array) -> jax.Array:
    return _bind(config, None, "final_norm", params["final_norm"])(x)


def _causal_context(config: TransformerConfig, mask: jax.Array, branch: jax.Array | None = None) -> Context:
    time = mask.shape[1]
    visible = jnp.tril(jnp.ones((time, time), bool))[None, :, :] & mask[:, None, :]
    if branch is None:
        positions = positions_from_mask(mask)
    else:
        visible &= (branch[:, None, :] == 0) | (branch[:, None, :] == branch[:, :, None])
        positions = jnp.maximum(jnp.sum(visible, axis=2, dtype=jnp.int32) - 1, 0)
    cos, sin = rope_tables(config, positions)
    return Context(cos, sin, visible)


def forward(
    config: TransformerConfig,
    params: Tree,
    ids: jax.Array,
    mask: jax.Array,
    *,
    adapter: Tree | None = None,
    lora: LoraSpec | None = None,
    branch: jax.Array | None = None,
    lower: jax.Array | None = None,
    first: int = 0,
    remat: bool = False,
) -> jax.Array:
    """Hidden states [batch, time, embed], after the final norm, of ids [batch, time] under a boolean mask.

    Positions come from the mask: padding on either side changes nothing at real tokens. `adapter` with its `lora`
    switches the low-rank path on. `branch` [batch, time] lets several continuations of one prefix share it in a row:
    a token sees tokens before it of branch 0 and of its own, and is counted on from the prefix. `lower`, a
    tap of `prefill` and `decode_step`, stands in for the first `first` layers. `remat` recomputes each block in the
    backward pass.
    """
    x = _embed(config, params, ids) if lower is None else lower
    context = _causal_context(config, mask, branch)
    passed = _span(config, params, adapter, lora, x, context, first=first, remat=remat)
    return _norm(config, params, passed.x)


def prefill(
    config: TransformerConfig,
    params: Tree,
    ids: jax.Array,
    mask: jax.Array,
    *,
    slots: int,
    adapter: Tree | None = None,
    lora: LoraSpec | None = None,
    tap: int = 0,
) -> Passed:
    """Run the prompt and open a cache of `slots` positions; returns hidden states and the cache.

    With a `tap` above 0 the result also has `lower`, what the first `tap` layers made of the prompt.
    """
    x = _embed(config, params, ids)
    passed = _span(config, params, adapter, lora, x, _causal_context(config, mask), tap=tap, keep=True)
    free = slots - ids.shape[1]
    padded = jax.tree.map(lambda x: jnp.pad(x, [(0, 0)] * (x.ndim - 2) + [(0, free), (0, 0)]), passed.caches)
    return Passed(_norm(config, params, passed.x), padded, passed.lower)


def decode_step(
    config: TransformerConfig,
    params: Tree,
    ids: jax.Array,
    caches: Caches,
    *,
    slot: jax.Array,
    filled: jax.Array,
    positions: jax.Array,
    adapter: Tree | None = None,
    lora: LoraSpec | None = None,
    tap: int = 0,
) -> Passed:
    """One token per row: ids [batch] at cache position `slot` (a scalar), which `filled` [batch, slots] includes.

    `positions` [batch] counts the real tokens before it. Returns hidden states [batch, embed] and the cache, and with a
    `tap` above 0 `lower` [batch, 1, embed], what the first `tap` layers made of the token.
    """
    cos, sin = rope_tables(config, positions[:, None])
    context = Context(cos, sin, filled[:, None, :], slot)
    x = _embed(config, params, ids[:, None])
    passed = _span(config, params, adapter, lora, x, context, caches, tap=tap, keep=True)
    return Passed(_norm(config, params, passed.x)[:, 0], passed.caches, passed.lower)


def logits(config: TransformerConfig, params: Tree, hidden: jax.Array) -> jax.Array:
    """Next-token logits [..., vocab] of hidden states [..., embed], in the compute dtype."""
    if config.tie_embeddings:
        return jnp.einsum("...d,vd->...v", hidden, params["embedder"]["table"].astype(hidden.dtype))
    return jnp.einsum("...d,dv->...v", hidden, params["lm_head"]["kernel"].astype(hidden.dtype))
