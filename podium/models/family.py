"""What every network can do, whatever its architecture: prompt and response ids in; states, logits and caches out.

A module per kind of network implements these functions; which one is decided by the config, here and nowhere else.
States [..., embed] become logits by `logits`, token values or a score by `heads.apply_head`.

All take (config, params, ...). `adapter` with its `lora` switches the low-rank path on. A decoder can hand back the
states behind its lowest `trunk_layers` layers while it generates, and start behind them where it is given its `Trunk`;
an encoder-decoder has no such options.
"""

import functools
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp

from podium.models import encoder_decoder, transformer
from podium.models.config import NetworkConfig, TransformerConfig
from podium.models.lora import LoraSpec, stack_depth
from podium.models.packing import Packed
from podium.models.text import ForwardOutput, Text, Trunk
from podium.ops.linear import contract

Tree = Any


def _module(config: NetworkConfig) -> ModuleType:
    return transformer if isinstance(config, TransformerConfig) else encoder_decoder


def _trunk(trunk: Trunk | None) -> dict[str, Trunk]:
    return {} if trunk is None else {"trunk": trunk}


def _trunk_layers(count: int) -> dict[str, int]:
    return {"trunk_layers": count} if count else {}


def init_params(config: NetworkConfig, key: jax.Array, lora: LoraSpec | None = None) -> tuple[Tree, Tree]:
    """Draw fresh parameters; returns (base tree, adapter tree), the adapter {} without lora. Blocks are stacked."""
    return _module(config).init_params(config, key, lora)


def init_adapter(config: NetworkConfig, lora: LoraSpec, key: jax.Array) -> Tree:
    """Draw a fresh adapter tree: A uniform, B zero, so that the adapted model starts equal to its base.

    Raises UserError for a choice of layers that no adapter's file could hold: before training, not when it is saved.
    """
    stack_depth(config, lora.layers is not None)
    return jax.jit(lambda k: init_params(config, k, lora)[1])(key)


def abstract_params(config: NetworkConfig, lora: LoraSpec | None = None) -> tuple[Tree, Tree]:
    """Shapes and dtypes of (base tree, adapter tree) without allocating memory."""
    # No choice of what computes a network changes its parameters: they share one answer.
    shapes = _shapes(config.replace(implementation="reference", remat="none", share_prompts=True), lora)
    return jax.tree.map(lambda leaf: leaf, shapes)


@functools.lru_cache(maxsize=32)
def _shapes(config: NetworkConfig, lora: LoraSpec | None) -> tuple[Tree, Tree]:
    return jax.eval_shape(lambda: init_params(config, jax.random.key(0), lora))


def parameter_axes(config: NetworkConfig, lora: LoraSpec | None = None) -> tuple[Tree, Tree]:
    """Logical axes of every leaf of the base tree and of the adapter tree."""
    return _module(config).parameter_axes(config, lora)


def response_states(
    config: NetworkConfig,
    params: Tree,
    text: Text,
    *,
    adapter: Tree | None = None,
    lora: LoraSpec | None = None,
    trunk: Trunk | None = None,
) -> jax.Array:
    """States [batch, response, embed] that predict each response token: each has read all tokens before it.

    Padding, on the left of prompts and the right of responses, changes nothing at real tokens.
    """
    return _module(config).response_states(config, params, text, adapter=adapter, lora=lora, **_trunk(trunk))


def last_states(
    config: NetworkConfig,
    params: Tree,
    text: Text,
    *,
    adapter: Tree | None = None,
    lora: LoraSpec | None = None,
    trunk: Trunk | None = None,
) -> jax.Array:
    """States [batch, embed] at the last real token of each text: they have read all of it."""
    return _module(config).last_states(config, params, text, adapter=adapter, lora=lora, **_trunk(trunk))


def packed_states(
    config: NetworkConfig, params: Tree, packed: Packed, *, adapter: Tree | None = None, lora: LoraSpec | None = None
) -> jax.Array:
    """States [rows, width, embed] of rows that `packing.pack` laid out: each token has read its own text alone."""
    return _module(config).packed_states(config, params, packed, adapter=adapter, lora=lora)


def prefill(
    config: NetworkConfig,
    params: Tree,
    prompt_ids: jax.Array,
    prompt_mask: jax.Array,
    *,
    room: int,
    adapter: Tree | None = None,
    lora: LoraSpec | None = None,
    trunk_layers: int = 0,
) -> ForwardOutput:
    """Read left-padded prompts [batch, prompt] and open a cache with room for so many response tokens.

    The states [batch, embed] predict the first of them.
    """
    return _module(config).prefill(
        config, params, prompt_ids, prompt_mask, room=room, adapter=adapter, lora=lora, **_trunk_layers(trunk_layers)
    )


def decode_step(
    config: NetworkConfig,
    params: Tree,
    ids: jax.Array,
    cache: Any,
    *,
    step: jax.Array,
    adapter: Tree | None = None,
    lora: LoraSpec | None = None,
    trunk_layers: int = 0,
) -> ForwardOutput:
    """Read response token number `step` (a scalar, from 0) of every row, ids [batch]; states predict the next one."""
    return _module(config).decode_step(
        config, params, ids, cache, step=step, adapter=adapter, lora=lora, **_trunk_layers(trunk_layers)
    )


def unstacked(config: NetworkConfig, tree: Tree) -> Tree:
    """Give base or adapter parameters with the decoding blocks as a tuple of layers in place of a stack.

    A decode loop on a CPU runs faster with them: no slice of the weights is copied per token.
    """
    return _module(config).unstacked(tree)


def logits(config: NetworkConfig, params: Tree, hidden: jax.Array) -> jax.Array:
    """Next-token logits [..., vocab] of states [..., embed], in the compute dtype."""
    if config.logits_scale != 1.0:
        hidden = hidden * jnp.asarray(config.logits_scale, hidden.dtype)
    if config.tie_embeddings:
        logits = jnp.einsum("...d,vd->...v", hidden, params["embedder"]["table"].astype(hidden.dtype))
    else:
        logits = contract(hidden, params["lm_head"]["kernel"].astype(hidden.dtype), 1, config.implementation)
    cap = config.logits_softcap if isinstance(config, TransformerConfig) else None
    return logits if cap is None else cap * jnp.tanh(logits / cap)
