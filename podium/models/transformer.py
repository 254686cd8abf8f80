"""The decoder-only transformer, behind the functions of `family`.

A parameter tree is {"embedder", "blocks", "final_norm"[, "lm_head"]}.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from podium.models import parts
from podium.models.attention import Context
from podium.models.config import TransformerConfig
from podium.models.heads import last_token
from podium.models.lora import LoraSpec
from podium.models.packing import Packed
from podium.models.parts import Part, Parts, bind, final_norm
from podium.models.rope import rope_tables
from podium.models.stack import Block, Caches, Contexts, Span, run
from podium.models.text import ForwardOutput, Text, Trunk
from podium.ops.attention import open_caches
from podium.ops.embedding import lookup
from podium.ops.types import Segments, Visibility
from podium.parallel.sharding import constrain

Tree = Any


class Cache(NamedTuple):
    """What was read: keys and values of all layers, which slots hold a token [batch, slots], tokens so far [batch].

    start: the slot of the first response token.
    """

    layers: Caches
    filled: jax.Array
    positions: jax.Array
    start: jax.Array


def _parts(config: TransformerConfig) -> Parts:
    places: dict[parts.Place, Part] = {
        ("embedder",): Part(parts.Embedder),
        ("blocks",): Part(Block, config.layers),
        ("final_norm",): Part(final_norm),
    }
    return places if config.tie_embeddings else places | {("lm_head",): Part(parts.Head)}


def init_params(config: TransformerConfig, key: jax.Array, lora: LoraSpec | None = None) -> tuple[Tree, Tree]:
    return parts.init(_parts(config), config, key, lora)


def parameter_axes(config: TransformerConfig, lora: LoraSpec | None = None) -> tuple[Tree, Tree]:
    return parts.axes(_parts(config), config, lora)


def unstacked(tree: Tree) -> Tree:
    return {**tree, "blocks": parts.unstack(tree["blocks"])}


def positions_from_mask(mask: jax.Array) -> jax.Array:
    """Count real tokens from 0 along each row [batch, time]; padding gets 0, wherever it stands."""
    return jnp.maximum(jnp.cumsum(mask.astype(jnp.int32), axis=1) - 1, 0)


def _span(config: TransformerConfig, lora: LoraSpec | None, adapter: Tree | None) -> Span:
    adapted = lora.first_layer(config.layers) if lora and adapter else config.layers
    return Span(Block, config, lora, config.layers, adapted, config.sliding_layers)


def _embed(config: TransformerConfig, params: Tree, ids: jax.Array) -> jax.Array:
    x = lookup(params["embedder"]["table"], ids, config.dtype)
    if config.embedding_scale != 1.0:
        # Rounded to the compute dtype first, as Gemma's released code does.
        x = x * jnp.asarray(config.embedding_scale, config.dtype)
    return constrain(x, "batch", "time", "activation")


def _norm(config: TransformerConfig, params: Tree, x: jax.Array) -> jax.Array:
    return bind(final_norm, config, None, params["final_norm"])(x)


def _contexts(
    config: TransformerConfig,
    visible: Visibility,
    positions: jax.Array,
    key_positions: jax.Array,
    slot: jax.Array | None = None,
) -> Contexts:
    """visible: in ordinary layers; positions: of queries [batch, time] and of keys [batch, slots]."""
    cos, sin = rope_tables(config, positions)
    full = Context(visible, cos, sin, slot=slot)
    if not any(config.sliding_layers):
        return Contexts(full)
    assert config.sliding_window is not None, "sliding layers have a window"
    near = positions[:, :, None] - key_positions[:, None, :] < config.sliding_window
    if config.local_rope_theta is not None:
        cos, sin = rope_tables(config, positions, local=True)
    local = visible._replace(mask=visible.mask & near, window=config.sliding_window)
    return Contexts(full, Context(local, cos, sin, slot=slot))


def _causal(mask: jax.Array) -> Visibility:
    """See the real tokens so far, of one text a row."""
    time = mask.shape[1]
    segment = mask.astype(jnp.int32)
    visible = jnp.asarray(np.tril(np.ones((time, time), bool)))[None, :, :] & mask[:, None, :]
    return Visibility(visible, Segments(segment, segment, packed=False), causal=True)


def forward(
    config: TransformerConfig,
    params: Tree,
    ids: jax.Array,
    mask: jax.Array,
    *,
    adapter: Tree | None = None,
    lora: LoraSpec | None = None,
    trunk: Trunk | None = None,
) -> jax.Array:
    """Hidden states [batch, time, embed], after the final norm, of ids [batch, time] under a boolean mask.

    Positions come from the mask: padding on either side changes nothing at real tokens. `trunk` stands in for the
    lowest layers.
    """
    x, first = (_embed(config, params, ids), 0) if trunk is None else (trunk.states, trunk.layers)
    positions = positions_from_mask(mask)
    contexts = _contexts(config, _causal(mask), positions, positions)
    out = run(_span(config, lora, adapter), params["blocks"], _blocks(adapter), x, contexts, first=first)
    return _norm(config, params, out.states)


def _blocks(adapter: Tree | None) -> Tree | None:
    return adapter["blocks"] if adapter else None


def response_states(config: TransformerConfig, params: Tree, text: Text, **options: Any) -> jax.Array:
    prompt = text.prompt_ids.shape[1]
    return forward(config, params, *text.joined(), **options)[:, prompt - 1 : -1]


def last_states(config: TransformerConfig, params: Tree, text: Text, **options: Any) -> jax.Array:
    ids, mask = text.joined()
    return last_token(forward(config, params, ids, mask, **options), mask)


def packed_states(
    config: TransformerConfig,
    params: Tree,
    packed: Packed,
    *,
    adapter: Tree | None = None,
    lora: LoraSpec | None = None,
) -> jax.Array:
    """A token sees those before it of its own segment that are of branch 0 or of its own; they are its position."""
    segment, branch = packed.segment, packed.branch
    mask = _causal(packed.mask).mask & (segment[:, None, :] == segment[:, :, None])
    mask &= (branch[:, None, :] == 0) | (branch[:, None, :] == branch[:, :, None])
    positions = jnp.maximum(jnp.sum(mask, axis=2, dtype=jnp.int32) - 1, 0)
    # Where responses share a prompt only the mask tells them apart.
    segments = Segments(segment, segment, packed=True) if config.packing == "whole" else None
    contexts = _contexts(config, Visibility(mask, segments, causal=True), positions, positions)
    x = _embed(config, params, packed.ids)
    out = run(_span(config, lora, adapter), params["blocks"], _blocks(adapter), x, contexts)
    return _norm(config, params, out.states)


def prefill(
    config: TransformerConfig,
    params: Tree,
    prompt_ids: jax.Array,
    prompt_mask: jax.Array,
    *,
    room: int,
    adapter: Tree | None = None,
    lora: LoraSpec | None = None,
    trunk_layers: int = 0,
) -> ForwardOutput:
    x = _embed(config, params, prompt_ids)
    positions = positions_from_mask(prompt_mask)
    contexts = _contexts(config, _causal(prompt_mask), positions, positions)
    span = _span(config, lora, adapter)
    out = run(span, params["blocks"], _blocks(adapter), x, contexts, trunk_layers=trunk_layers, keep=True)
    cache = Cache(
        layers=open_caches(out.cache, room, config.implementation),
        filled=jnp.pad(prompt_mask, ((0, 0), (0, room))),
        positions=jnp.sum(prompt_mask.astype(jnp.int32), axis=1),
        start=jnp.asarray(prompt_ids.shape[1], jnp.int32),
    )
    return ForwardOutput(_norm(config, params, out.states[:, -1]), cache, out.trunk_states)


def decode_step(
    config: TransformerConfig,
    params: Tree,
    ids: jax.Array,
    cache: Cache,
    *,
    step: jax.Array,
    adapter: Tree | None = None,
    lora: LoraSpec | None = None,
    trunk_layers: int = 0,
) -> ForwardOutput:
    slot = cache.start + step
    now = jnp.ones((ids.shape[0], 1), bool)
    filled = jax.lax.dynamic_update_slice_in_dim(cache.filled, now, slot, axis=1)
    visible = Visibility(filled[:, None, :])
    contexts = _contexts(config, visible, cache.positions[:, None], positions_from_mask(filled), slot)
    x = _embed(config, params, ids[:, None])
    out = run(
        _span(config, lora, adapter),
        params["blocks"],
        _blocks(adapter),
        x,
        contexts,
        cache.layers,
        trunk_layers=trunk_layers,
        keep=True,
    )
    after = Cache(out.cache, filled, cache.positions + 1, cache.start)
    return ForwardOutput(_norm(config, params, out.states[:, 0]), after, out.trunk_states)
