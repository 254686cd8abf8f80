"""Prefill, then one pure decode step in a while loop that stops when every row has ended."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from podium.generation.sampling import Sampling, choose
from podium.models import transformer
from podium.models.config import TransformerConfig
from podium.models.lora import LoraSpec

Tree = Any


class Responses(NamedTuple):
    """What a batch of prompts was answered.

    ids, mask, logprobs: [batch, max_new_tokens]; the mask is true at generated tokens, the end token included, and
    the ids elsewhere are pad. finished: boolean [batch], an end token was generated.
    """

    ids: jax.Array
    mask: jax.Array
    logprobs: jax.Array
    finished: jax.Array


class _Loop(NamedTuple):
    step: jax.Array
    token: jax.Array
    done: jax.Array
    filled: jax.Array
    position: jax.Array
    caches: Any
    responses: Responses


def respond(
    config: TransformerConfig,
    params: Tree,
    prompt_ids: jax.Array,
    prompt_mask: jax.Array,
    keys: jax.Array,
    *,
    max_new_tokens: int,
    sampling: Sampling,
    eos_ids: tuple[int, ...],
    pad_id: int,
    adapter: Tree | None = None,
    lora: LoraSpec | None = None,
    unroll: bool,
) -> Responses:
    """Sample a response to each left-padded prompt [batch, prompt] with one random key per row.

    A row's tokens depend on its own prompt and key alone, whatever else is in the batch. A row whose prompt mask is
    empty is a filler: it is done before it starts. `unroll` decodes with one copy of the weights per layer instead of
    scanning the stack (faster on CPU, compile time grows with depth).
    """
    batch, prompt = prompt_ids.shape
    slots = prompt + max_new_tokens
    if unroll:
        params, adapter = _unstack(params, adapter)
    hidden, caches = transformer.prefill(
        config, params, prompt_ids, prompt_mask, slots=slots, adapter=adapter, lora=lora
    )

    def pick(hidden: jax.Array, step: jax.Array, done: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        step_keys = jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, step)
        ids, logprobs = choose(transformer.logits(config, params, hidden), step_keys, sampling)
        ids = jnp.where(done, pad_id, ids)
        ended = jnp.any(ids[:, None] == jnp.asarray(eos_ids, ids.dtype)[None, :], axis=-1) & ~done
        return ids, jnp.where(done, 0.0, logprobs), ended

    def write(responses: Responses, step: jax.Array, ids: jax.Array, logprobs: jax.Array, done: jax.Array) -> Responses:
        def put(to: jax.Array, column: jax.Array) -> jax.Array:
            return jax.lax.dynamic_update_slice_in_dim(to, column[:, None], step, axis=1)

        return responses._replace(
            ids=put(responses.ids, ids), mask=put(responses.mask, ~done), logprobs=put(responses.logprobs, logprobs)
        )

    def body(loop: _Loop) -> _Loop:
        slot = prompt + loop.step - 1
        filled = jax.lax.dynamic_update_slice_in_dim(loop.filled, jnp.ones((batch, 1), bool), slot, axis=1)
        hidden, caches = transformer.decode_step(
            config,
            params,
            loop.token,
            loop.caches,
            slot=slot,
            filled=filled,
            positions=loop.position,
            adapter=adapter,
            lora=lora,
        )
        ids, logprobs, ended = pick(hidden, loop.step, loop.done)
        responses = write(loop.responses, loop.step, ids, logprobs, loop.done)
        responses = responses._replace(finished=responses.finished | ended)
        return _Loop(loop.step + 1, ids, loop.done | ended, filled, loop.position + 1, caches, responses)

    empty = Responses(
        ids=jnp.full((batch, max_new_tokens), pad_id, jnp.int32),
        mask=jnp.zeros((batch, max_new_tokens), bool),
        logprobs=jnp.zeros((batch, max_new_tokens), jnp.float32),
        finished=jnp.zeros((batch,), bool),
    )
    start = jnp.zeros((), jnp.int32)
    filler = ~jnp.any(prompt_mask, axis=1)
    ids, logprobs, ended = pick(hidden[:, -1], start, filler)
    first = write(empty, start, ids, logprobs, filler)._replace(finished=ended)
    filled = jnp.pad(prompt_mask, ((0, 0), (0, max_new_tokens)))
    position = jnp.sum(prompt_mask.astype(jnp.int32), axis=1)
    loop = _Loop(start + 1, ids, filler | ended, filled, position, caches, first)
    return jax.lax.while_loop(lambda loop: (loop.step < max_new_tokens) & ~jnp.all(loop.done), body, loop).responses


def _unstack(params: Tree, adapter: Tree | None) -> tuple[Tree, Tree | None]:
    params = {**params, "blocks": transformer.unstack(params["blocks"])}
    if adapter:
        adapter = {**adapter, "blocks": transformer.unstack(adapter["blocks"])}
    return params, adapter
