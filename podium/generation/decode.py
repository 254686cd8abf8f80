"""Prefill, then one pure decode step in a while loop that stops when every row has ended."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from podium.generation.sampling import Sampling, choose, draws
from podium.models import family
from podium.models.config import NetworkConfig
from podium.models.lora import LoraSpec
from podium.models.text import ForwardOutput
from podium.parallel.phases import phase
from podium.parallel.sharding import on_each_slice

Tree = Any


class Responses(NamedTuple):
    """What a batch of prompts was answered.

    ids, mask, logprobs: [batch, max_new_tokens]; the mask is true at generated tokens, the end token included, and
    the ids elsewhere are pad. finished: boolean [batch], an end token was generated. trunk_states: [batch, prompt +
    max_new_tokens, embed], what the lowest layers made of prompt and response, None where it was not asked for.
    trunk_ending: of what stands behind a response that was cut off, [batch, ending, embed].
    """

    ids: jax.Array
    mask: jax.Array
    logprobs: jax.Array
    finished: jax.Array
    trunk_states: jax.Array | None = None
    trunk_ending: jax.Array | None = None


class _Loop(NamedTuple):
    step: jax.Array
    token: jax.Array
    done: jax.Array
    cache: Any
    responses: Responses


@dataclass(frozen=True)
class _Decoder:
    """One row-wise policy with how it chooses tokens; lives while `respond` is traced."""

    config: NetworkConfig
    params: Tree
    adapter: Tree | None
    lora: LoraSpec | None
    uniform: jax.Array
    sampling: Sampling
    eos_ids: tuple[int, ...]
    pad_id: int
    trunk_layers: int

    def pick(
        self, responses: Responses, states: jax.Array, step: jax.Array, done: jax.Array
    ) -> tuple[Responses, jax.Array, jax.Array]:
        """Choose a token per row and write it; returns (responses, ids, rows that are done now)."""
        logits = family.logits(self.config, self.params, states)
        ids, logprobs = choose(logits, self.uniform[step], self.sampling, self.config.implementation)
        ids = jnp.where(done, self.pad_id, ids)
        ended = jnp.any(ids[:, None] == jnp.asarray(self.eos_ids, ids.dtype)[None, :], axis=-1) & ~done

        def write(to: jax.Array, column: jax.Array) -> jax.Array:
            return jax.lax.dynamic_update_slice_in_dim(to, column[:, None], step, axis=1)

        written = Responses(
            ids=write(responses.ids, ids),
            mask=write(responses.mask, ~done),
            logprobs=write(responses.logprobs, jnp.where(done, 0.0, logprobs)),
            finished=responses.finished | ended,
            trunk_states=responses.trunk_states,
            trunk_ending=responses.trunk_ending,
        )
        return written, ids, done | ended

    def read(self, tokens: jax.Array, cache: Any, step: jax.Array) -> ForwardOutput:
        """Let the model read response token number `step` of every row."""
        return family.decode_step(
            self.config,
            self.params,
            tokens,
            cache,
            step=step,
            adapter=self.adapter,
            lora=self.lora,
            trunk_layers=self.trunk_layers,
        )

    def feed(self, loop: _Loop) -> tuple[jax.Array, _Loop]:
        """Feed the last token; returns its states and the loop with the cache that holds it."""
        out = self.read(loop.token, loop.cache, loop.step - 1)
        responses = loop.responses
        if responses.trunk_states is not None and out.trunk_states is not None:
            place = responses.trunk_states.shape[1] - responses.ids.shape[1] + loop.step - 1
            written = jax.lax.dynamic_update_slice_in_dim(responses.trunk_states, out.trunk_states, place, axis=1)
            responses = responses._replace(trunk_states=written)
        return out.states, loop._replace(cache=out.cache, responses=responses)

    def close(self, loop: _Loop, ending: tuple[int, ...]) -> Responses:
        """Let the lowest layers read what the loop did not feed: the last token, and `ending` behind full responses."""
        if loop.responses.trunk_states is None:
            return loop.responses
        _, loop = self.feed(loop)
        cache, states = loop.cache, []
        for place, token in enumerate(ending):
            out = self.read(jnp.full_like(loop.token, token), cache, loop.step + place)
            cache = out.cache
            assert out.trunk_states is not None, "the prompt's were kept"
            states.append(out.trunk_states)
        return loop.responses._replace(trunk_ending=jnp.concatenate(states, axis=1) if states else None)

    def advance(self, loop: _Loop) -> _Loop:
        """Feed the last token, choose the next."""
        states, loop = self.feed(loop)
        responses, ids, done = self.pick(loop.responses, states, loop.step, loop.done)
        return loop._replace(step=loop.step + 1, token=ids, done=done, responses=responses)

    def answer(
        self, responses: Responses, prompts: ForwardOutput, done: jax.Array, ending: tuple[int, ...]
    ) -> Responses:
        """Go on from the prompts, as they were read, until every row is done; done: rows that are from the start."""
        length = responses.ids.shape[1]
        start = jnp.zeros((), jnp.int32)
        responses, ids, done = self.pick(responses, prompts.states, start, done)
        loop = _Loop(start + 1, ids, done, prompts.cache, responses)
        with phase("decode"):
            loop = jax.lax.while_loop(
                lambda loop: (loop.step < length) & ~jnp.all(loop.done), lambda loop: self.advance(loop), loop
            )
            return self.close(loop, ending)


def respond(
    config: NetworkConfig,
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
    trunk_layers: int = 0,
    ending: tuple[int, ...] = (),
) -> Responses:
    """Sample a response to each left-padded prompt [batch, prompt] with one random key per row.

    A row's tokens depend on its own prompt and key alone, whatever else is in the batch. A row whose prompt mask is
    empty is a filler: it is done before it starts. `unroll` decodes with one copy of the weights per layer instead of
    scanning the stack (faster on CPU, compile time grows with depth). `trunk_layers` above 0, of a decoder, keeps what
    so many of its lowest layers made of every token, and of `ending` behind the responses that were cut off.
    """

    def answer(weights: tuple[Tree, Tree | None], rows: tuple[jax.Array, ...]) -> Responses:
        (params, adapter), (prompt_ids, prompt_mask, keys) = weights, rows
        if unroll:
            params = family.unstacked(config, params)
            adapter = family.unstacked(config, adapter) if adapter else adapter
        room = max_new_tokens + (len(ending) if trunk_layers else 0)
        out = family.prefill(
            config, params, prompt_ids, prompt_mask, room=room, adapter=adapter, lora=lora, trunk_layers=trunk_layers
        )
        uniform = draws(keys, max_new_tokens)
        decoder = _Decoder(config, params, adapter, lora, uniform, sampling, eos_ids, pad_id, trunk_layers)
        empty = _no_responses(len(prompt_ids), max_new_tokens, pad_id, out.trunk_states)
        return decoder.answer(empty, out, ~jnp.any(prompt_mask, axis=1), ending)

    # A loop over all slices would ask all of them after every token whether any row goes on.
    responses: Responses = on_each_slice(answer, (params, adapter), (prompt_ids, prompt_mask, keys))
    return responses


def _no_responses(batch: int, length: int, pad_id: int, trunk_states: jax.Array | None) -> Responses:
    """Make room for responses of so many tokens; trunk_states: of the prompts."""
    if trunk_states is not None:
        trunk_states = jnp.pad(trunk_states, ((0, 0), (0, length), (0, 0)))
    return Responses(
        ids=jnp.full((batch, length), pad_id, jnp.int32),
        mask=jnp.zeros((batch, length), bool),
        logprobs=jnp.zeros((batch, length), jnp.float32),
        finished=jnp.zeros((batch,), bool),
        trunk_states=trunk_states,
    )
