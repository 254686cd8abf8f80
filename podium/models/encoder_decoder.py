"""The encoder-decoder transformer of the T5 family, behind the functions of `family`.

A parameter tree is {"embedder", "encoder", "decoder"[, "lm_head"]}, each stack {"blocks", "final_norm",
"position_bias"}. A reward model of the encoder alone has the embedder and the encoder.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from podium.models import parts
from podium.models.attention import Attention, Context
from podium.models.config import BlockConfig, EncoderDecoderConfig
from podium.models.heads import last_token
from podium.models.layers import INIT_STD, MLP, Norm
from podium.models.lora import LoraSpec
from podium.models.packing import Packed
from podium.models.parts import Build, Part, Parts, bind, final_norm
from podium.models.stack import Block, Caches, Span, run
from podium.models.text import ForwardOutput, Text
from podium.ops.attention import LayerCache, Memory, open_caches
from podium.ops.bias import relative_bias
from podium.ops.embedding import lookup
from podium.ops.types import Segments, Visibility
from podium.parallel.sharding import constrain

Tree = Any


class CrossContext(NamedTuple):
    """Contexts of a decoder block's two attentions, and the prompt's states [batch, prompt, embed] or None.

    None where a cache remembers them.
    """

    own: Context
    cross: Context
    states: jax.Array | None = None


class CrossMemory(NamedTuple):
    """Keys and values of the tokens read so far, and of the prompt."""

    own: Memory
    prompt: Memory


class CrossCache(NamedTuple):
    """The same, as decode steps look at it."""

    own: LayerCache
    prompt: LayerCache


class Cache(NamedTuple):
    """own, prompt: per layer; filled: boolean [batch, slots]; prompt_mask: boolean [batch, prompt]."""

    own: Caches
    prompt: Caches
    filled: jax.Array
    prompt_mask: jax.Array


class PositionBias(nnx.Module):
    """Bias per bucket of relative distance and head [buckets, heads]."""

    def __init__(self, config: EncoderDecoderConfig, lora: LoraSpec | None, rngs: nnx.Rngs):
        shape = (config.position_buckets, config.heads)
        self.table = nnx.Param(
            INIT_STD * jax.random.normal(rngs.params(), shape, jnp.float32), axes=("buckets", "heads")
        )


class CrossBlock(nnx.Module):
    """Decoder block: attention to the tokens so far, attention to the prompt, MLP, each behind a norm and added."""

    def __init__(self, config: BlockConfig, lora: LoraSpec | None, rngs: nnx.Rngs):
        self.attention_norm = Norm(config)
        self.attention = Attention(config, lora, rngs=rngs)
        self.cross_norm = Norm(config)
        self.cross_attention = Attention(config, lora, rngs=rngs)
        self.mlp_norm = Norm(config)
        self.mlp = MLP(config, lora, rngs=rngs)

    def __call__(self, x: jax.Array, context: CrossContext, cache: CrossCache | None) -> tuple[jax.Array, Any]:
        """Return a CrossMemory too; where there is a cache, the tokens' part alone: the prompt's stays as it is."""
        mixed, own = self.attention(self.attention_norm(x), context.own, None if cache is None else cache.own)
        x = x + mixed
        prompt: Memory
        if cache is None:
            assert context.states is not None, "without a cache the prompt's states are given"
            prompt = self.cross_attention.project_kv(context.states)
        else:
            prompt = cache.prompt
        x = x + self.cross_attention.cross_attend(self.cross_norm(x), prompt, context.cross)
        x = constrain(x + self.mlp(self.mlp_norm(x)), "batch", "time", "activation")
        return x, CrossMemory(own, prompt) if cache is None else own


def _parts(config: EncoderDecoderConfig) -> Parts:
    places: dict[parts.Place, Part] = {
        ("embedder",): Part(parts.Embedder),
        ("encoder", "blocks"): Part(Block, config.encoder_layers),
        ("encoder", "final_norm"): Part(final_norm),
        ("encoder", "position_bias"): Part(PositionBias),
    }
    if config.encoder_only:
        return places
    places |= {
        ("decoder", "blocks"): Part(CrossBlock, config.decoder_layers),
        ("decoder", "final_norm"): Part(final_norm),
        ("decoder", "position_bias"): Part(PositionBias),
    }
    return places if config.tie_embeddings else places | {("lm_head",): Part(parts.Head)}


def init_params(config: EncoderDecoderConfig, key: jax.Array, lora: LoraSpec | None = None) -> tuple[Tree, Tree]:
    return parts.init(_parts(config), config, key, lora)


def parameter_axes(config: EncoderDecoderConfig, lora: LoraSpec | None = None) -> tuple[Tree, Tree]:
    return parts.axes(_parts(config), config, lora)


def unstacked(tree: Tree) -> Tree:
    """The encoder runs once per prompt and stays stacked."""
    return {**tree, "decoder": {**tree["decoder"], "blocks": parts.unstack(tree["decoder"]["blocks"])}}


def position_buckets(distance: np.ndarray, config: EncoderDecoderConfig, *, both_ways: bool) -> np.ndarray:
    """Bucket of each distance, key place less query place (T5's released code): near ones exact, far ones by logarithm.

    In float32, whose rounding decides at the edges of buckets. Without `both_ways` no key comes after its query.
    """
    buckets = config.position_buckets
    offset = np.zeros(distance.shape, np.int32)
    if both_ways:
        buckets //= 2
        offset += (distance > 0) * buckets
        distance = np.abs(distance)
    else:
        distance = np.maximum(-distance, 0)
    exact = buckets // 2
    ratio = np.log(np.maximum(distance, 1).astype(np.float32) / np.float32(exact))
    scaled = ratio / np.float32(np.log(config.max_distance / exact)) * np.float32(buckets - exact)
    far = np.minimum(exact + scaled.astype(np.int32), buckets - 1)
    return (offset + np.where(distance < exact, distance, far)).astype(np.int32)


def _bias(config: EncoderDecoderConfig, stack: Tree, time: int, *, both_ways: bool) -> jax.Array:
    """Bias float32 [heads, time, time]. Texts are contiguous, so that places differ as positions do."""
    buckets = position_buckets(np.arange(1 - time, time), config, both_ways=both_ways)
    return relative_bias(stack["position_bias"]["table"], buckets, config.implementation)


def _step_bias(config: EncoderDecoderConfig, stack: Tree, slot: jax.Array, slots: int) -> jax.Array:
    """Bias [heads, 1, slots] of the query at `slot`."""
    by_distance = jnp.asarray(position_buckets(-np.arange(slots), config, both_ways=False))
    table = stack["position_bias"]["table"].astype(jnp.float32)
    buckets = jnp.take(by_distance, jnp.maximum(slot - jnp.arange(slots), 0))
    return jnp.transpose(jnp.take(table, buckets, axis=0))[:, None, :]


def _embed(config: EncoderDecoderConfig, params: Tree, ids: jax.Array) -> jax.Array:
    x = lookup(params["embedder"]["table"], ids, config.dtype)
    return constrain(x, "batch", "time", "activation")


def _norm(config: EncoderDecoderConfig, stack: Tree, x: jax.Array) -> jax.Array:
    return bind(final_norm, config, None, stack["final_norm"])(x)


def _blocks(adapter: Tree | None, stack: str) -> Tree | None:
    return adapter[stack]["blocks"] if adapter else None


def _span(build: Build, config: EncoderDecoderConfig, layers: int, lora: LoraSpec | None, adapter: Tree | None) -> Span:
    return Span(build, config, lora, layers, lora.first_layer(layers) if lora and adapter else layers)


def _encode(
    config: EncoderDecoderConfig,
    params: Tree,
    ids: jax.Array,
    visible: jax.Array,
    adapter: Tree | None,
    lora: LoraSpec | None,
) -> jax.Array:
    """States [batch, prompt, embed]; visible: boolean [batch, prompt or 1, prompt]."""
    stack = params["encoder"]
    context = Context(Visibility(visible), bias=_bias(config, stack, ids.shape[1], both_ways=True))
    span = _span(Block, config, config.encoder_layers, lora, adapter)
    out = run(span, stack["blocks"], _blocks(adapter, "encoder"), _embed(config, params, ids), context)
    return _norm(config, stack, out.states)


def _decode(
    config: EncoderDecoderConfig,
    params: Tree,
    ids: jax.Array,
    context: CrossContext,
    adapter: Tree | None,
    lora: LoraSpec | None,
    caches: Caches | None = None,
    *,
    keep: bool = False,
) -> ForwardOutput:
    stack = params["decoder"]
    span = _span(CrossBlock, config, config.decoder_layers, lora, adapter)
    x = _embed(config, params, ids)
    out = run(span, stack["blocks"], _blocks(adapter, "decoder"), x, context, caches, keep=keep)
    return ForwardOutput(_norm(config, stack, out.states), out.cache)


def _causal(mask: jax.Array) -> jax.Array:
    time = mask.shape[1]
    return jnp.asarray(np.tril(np.ones((time, time), bool)))[None, :, :] & mask[:, None, :]


def _read(
    config: EncoderDecoderConfig,
    params: Tree,
    text: Text,
    response_ids: jax.Array,
    response_mask: jax.Array,
    adapter: Tree | None,
    lora: LoraSpec | None,
) -> jax.Array:
    """Decoder states [batch, 1 + response, embed] of the start token and the response."""
    states = _encode(config, params, text.prompt_ids, text.prompt_mask[:, None, :], adapter, lora)
    batch = response_ids.shape[0]
    ids = jnp.concatenate([jnp.full((batch, 1), config.start_id, response_ids.dtype), response_ids], axis=1)
    mask = jnp.concatenate([jnp.ones((batch, 1), bool), response_mask], axis=1)
    own = Context(Visibility(_causal(mask)), bias=_bias(config, params["decoder"], ids.shape[1], both_ways=False))
    segments = Segments(jnp.ones(ids.shape, jnp.int32), text.prompt_mask.astype(jnp.int32), packed=False)
    cross = Context(Visibility(text.prompt_mask[:, None, :], segments))
    return _decode(config, params, ids, CrossContext(own, cross, states), adapter, lora).states


def response_states(
    config: EncoderDecoderConfig,
    params: Tree,
    text: Text,
    *,
    adapter: Tree | None = None,
    lora: LoraSpec | None = None,
) -> jax.Array:
    return _read(config, params, text, text.response_ids[:, :-1], text.response_mask[:, :-1], adapter, lora)


def last_states(
    config: EncoderDecoderConfig,
    params: Tree,
    text: Text,
    *,
    adapter: Tree | None = None,
    lora: LoraSpec | None = None,
) -> jax.Array:
    if config.encoder_only:
        ids, mask = text.joined()
        return last_token(_encode(config, params, ids, mask[:, None, :], adapter, lora), mask)
    states = _read(config, params, text, text.response_ids, text.response_mask, adapter, lora)
    start = jnp.ones((text.response_mask.shape[0], 1), bool)
    return last_token(states, jnp.concatenate([start, text.response_mask], axis=1))


def packed_states(
    config: EncoderDecoderConfig,
    params: Tree,
    packed: Packed,
    *,
    adapter: Tree | None = None,
    lora: LoraSpec | None = None,
) -> jax.Array:
    """A response's token sees those before it of its own segment and branch, and the segment's prompt."""

    def same(queries: jax.Array, keys: jax.Array) -> jax.Array:
        return queries[:, :, None] == keys[:, None, :]

    if config.encoder_only:
        visible = same(packed.segment, packed.segment) & packed.mask[:, None, :]
        return _encode(config, params, packed.ids, visible, adapter, lora)
    prompt_visible = same(packed.prompt_segment, packed.prompt_segment) & packed.prompt_mask[:, None, :]
    states = _encode(config, params, packed.prompt_ids, prompt_visible, adapter, lora)
    visible = _causal(packed.mask) & same(packed.segment, packed.segment) & same(packed.branch, packed.branch)
    own = Context(Visibility(visible), bias=_bias(config, params["decoder"], packed.ids.shape[1], both_ways=False))
    cross_visible = same(packed.segment, packed.prompt_segment) & packed.prompt_mask[:, None, :]
    cross = Context(Visibility(cross_visible, Segments(packed.segment, packed.prompt_segment, packed=True)))
    return _decode(config, params, packed.ids, CrossContext(own, cross, states), adapter, lora).states


def prefill(
    config: EncoderDecoderConfig,
    params: Tree,
    prompt_ids: jax.Array,
    prompt_mask: jax.Array,
    *,
    room: int,
    adapter: Tree | None = None,
    lora: LoraSpec | None = None,
) -> ForwardOutput:
    """Encode the prompts, then read the start token."""
    states = _encode(config, params, prompt_ids, prompt_mask[:, None, :], adapter, lora)
    batch = prompt_ids.shape[0]
    first = jnp.ones((batch, 1), bool)
    own = Context(Visibility(first[:, None, :]), bias=_bias(config, params["decoder"], 1, both_ways=False))
    context = CrossContext(own, Context(Visibility(prompt_mask[:, None, :])), states)
    start = jnp.full((batch, 1), config.start_id, prompt_ids.dtype)
    out = _decode(config, params, start, context, adapter, lora, keep=True)
    tokens, prompt = _apart(out.cache)
    filled = jnp.pad(first, ((0, 0), (0, room)))
    caches = open_caches(tokens, room, config.implementation), open_caches(prompt, 0, config.implementation)
    return ForwardOutput(out.states[:, 0], Cache(*caches, filled, prompt_mask))


def _apart(caches: Caches) -> tuple[Caches, Caches]:
    """Split what the layers remember of tokens from what they remember of the prompt."""
    if isinstance(caches, CrossMemory):
        return caches
    return tuple(layer.own for layer in caches), tuple(layer.prompt for layer in caches)


def _together(own: Caches, prompt: Caches) -> Caches:
    if isinstance(own, LayerCache):
        return CrossCache(own, prompt)
    return tuple(map(CrossCache, own, prompt))


def decode_step(
    config: EncoderDecoderConfig,
    params: Tree,
    ids: jax.Array,
    cache: Cache,
    *,
    step: jax.Array,
    adapter: Tree | None = None,
    lora: LoraSpec | None = None,
) -> ForwardOutput:
    slot = step + 1
    now = jnp.ones((ids.shape[0], 1), bool)
    filled = jax.lax.dynamic_update_slice_in_dim(cache.filled, now, slot, axis=1)
    bias = _step_bias(config, params["decoder"], slot, filled.shape[1])
    own = Context(Visibility(filled[:, None, :]), bias=bias, slot=slot)
    context = CrossContext(own, Context(Visibility(cache.prompt_mask[:, None, :])))
    caches = _together(cache.own, cache.prompt)
    out = _decode(config, params, ids[:, None], context, adapter, lora, caches, keep=True)
    return ForwardOutput(out.states[:, 0], Cache(out.cache, cache.prompt, filled, cache.prompt_mask))
