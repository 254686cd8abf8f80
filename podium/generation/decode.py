"""Prefill, then one pure decode step in a while loop that stops when every row has ended."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from podium.generation.sampling import Sampling, choose, draws
from podium.models import family
from podium.models.config import ModelConfig
from podium.models.lora import LoraSpec
from podium.models.text import Passed

Tree = Any


class Responses(NamedTuple):
    """What a batch of prompts was answered.

    ids, mask, logprobs: [batch, max_new_tokens]; the mask is true at generated tokens, the end token included, and
    the ids elsewhere are pad. finished: boolean [batch], an end token was generated. lower: where it was asked for and
    the network shares layers, [batch, prompt + max_new_tokens, embed], what the lowest layers made of prompt and
    response; else None. lower_ending: of what stands behind a response that was cut off, [batch, ending, embed].
    """

    ids: jax.Array
    mask: jax.Array
    logprobs: jax.Array
    finished: jax.Array
    lower: jax.Array | None = None
    lower_ending: jax.Array | None = None


class _Loop(NamedTuple):
    step: jax.Array
    token: jax.Array
    done: jax.Array
    cache: Any
    responses: Responses


@dataclass(frozen=True)
class _Decoder:
    """One row-wise policy with how it chooses tokens; lives while `respond` is traced."""

    config: ModelConfig
    params: Tree
    adapter: Tree | None
    lora: LoraSpec | None
    uniform: jax.Array
    sampling: Sampling
    eos_ids: tuple[int, ...]
    pad_id: int
    tap: int

    def pick(
        self, responses: Responses, states: jax.Array, step: jax.Array, done: jax.Array
    ) -> tuple[Responses, jax.Array, jax.Array]:
        """Choose a token per row and write it; returns (responses, ids, rows that are done now)."""
        ids, logprobs = choose(family.logits(self.config, self.params, states), self.uniform[step], self.sampling)
        ids = jnp.where(done, self.pad_id, ids)
        ended = jnp.any(ids[:, None] == jnp.asarray(self.eos_ids, ids.dtype)[None, :], axis=-1) & ~done

        def put(to: jax.Array, column: jax.Array) -> jax.Array:
            return jax.lax.dynamic_update_slice_in_dim(to, column[:, None], step, axis=1)

        written = Responses(
            ids=put(responses.ids, ids),
            mask=put(responses.mask, ~done),
            logprobs=put(responses.logprobs, jnp.where(done, 0.0, logprobs)),
            finished=responses.finished | ended,
            lower=responses.lower,
            lower_ending=responses.lower_ending,
        )
        return written, ids, done | ended

    def read(self, tokens: jax.Array, cache: Any, step: jax.Array) -> Passed:
        """Let the model read response token number `step` of every row."""
        return family.decode_step(
            self.config, self.params, tokens, cache, step=step, adapter=self.adapter, lora=self.lora, tap=self.tap
        )

    def feed(self, loop: _Loop) -> tuple[jax.Array, _Loop]:
        """Feed the last token; returns its states and the loop with what the model now remembers of it."""
        passed = self.read(loop.token, loop.cache, loop.step - 1)
        responses = loop.responses
        if responses.lower is not None and passed.lower is not None:
            place = responses.lower.shape[1] - responses.ids.shape[1] + loop.step - 1
            lower = jax.lax.dynamic_update_slice_in_dim(responses.lower, passed.lower, place, axis=1)
            responses = responses._replace(lower=lower)
        return passed.x, loop._replace(cache=passed.cache, responses=responses)

    def close(self, loop: _Loop, ending: tuple[int, ...]) -> Responses:
        """Let the lowest layers read what the loop did not feed: the last token, and `ending` behind full responses."""
        if loop.responses.lower is None:
            return loop.responses
        _, loop = self.feed(loop)
        cache, found = loop.cache, []
        for place, token in enumerate(ending):
            passed = self.read(jnp.full_like(loop.token, token), cache, loop.step + place)
            cache = passed.cache
            assert passed.lower is not None, "the prompt's were kept"
            found.append(passed.lower)
        return loop.responses._replace(lower_ending=jnp.concatenate(found, axis=1) if found else None)

    def advance(self, loop: _Loop) -> _Loop:
        """Feed the last token, choose the next."""
        states, loop = self.feed(loop)
        responses, ids, done = self.pick(loop.responses, states, loop.step, loop.done)
        return loop._replace(step=loop.step + 1, token=ids, done=done, responses=responses)


def respond(
    config: ModelConfig,
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
    tap: int = 0,
    ending: tuple[int, ...] = (),
) -> Responses:
    """Sample a response to each left-padded prompt [batch, prompt] with one random key per row.

    A row's tokens depend on its own prompt and key alone, whatever else is in the batch. A row whose prompt mask is
    empty is a filler: it is done before it starts. `unroll` decodes with one copy of the weights per layer instead of
    scanning the stack (faster on CPU, compile time grows with depth). A `tap` above 0 keeps what the first `tap` layers
    made of every token, where the network shares layers, and of `ending` behind the responses that were cut off.
    """
    batch = prompt_ids.shape[0]
    if unroll:
        params = family.unstacked(config, params)
        adapter = family.unstacked(config, adapter) if adapter else adapter
    room = max_new_tokens + (len(ending) if tap else 0)
    passed = family.prefill(config, params, prompt_ids, prompt_mask, room=room, adapter=adapter, lora=lora, tap=tap)
    decoder = _Decoder(config, params, adapter, lora, draws(keys, max_new_tokens), sampling, eos_ids, pad_id, tap)
    empty = Responses(
        ids=jnp.full((batch, max_new_tokens), pad_id, jnp.int32),
        mask=jnp.zeros((batch, max_new_tokens), bool),
        logprobs=jnp.zeros((batch, max_new_tokens), jnp.float32),
        finished=jnp.zeros((batch,), bool),
        lower=None if passed.lower is None else jnp.pad(passed.lower, ((0, 0), (0, max_new_tokens), (0, 0))),
    )
    start = jnp.zeros((), jnp.int32)
    responses, ids, done = decoder.pick(empty, passed.x, start, ~jnp.any(prompt_mask, axis=1))
    loop = _Loop(start + 1, ids, done, passed.cache, responses)
    loop = jax.lax.while_loop(
        lambda loop: (loop.step < max_new_tokens) & ~jnp.all(loop.done), lambda loop: decoder.advance(loop), loop
    )
    return decoder.close(loop, ending)
