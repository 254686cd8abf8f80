"""One model twice, ours and transformers': logits of responses, greedy continuations, rewards."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from podium.models import Model, family
from podium.models.text import Text

PAD = 0  # a token like any other: no network may look at padding
Ids = Sequence[int]


class Pair(NamedTuple):
    """theirs: a transformers model; ours; run: logits of rows of one shape, compiled once."""

    theirs: Any
    ours: Model
    run: Callable[[Sequence[tuple[Ids, Ids]]], np.ndarray]


def as_text(rows: Sequence[tuple[Ids, Ids]], prompt: int, response: int) -> Text:
    """Lay prompts and responses out in arrays of these widths."""
    ids = np.full((len(rows), prompt + response), PAD, np.int32)
    mask = np.zeros(ids.shape, bool)
    for row, (asked, answered) in enumerate(rows):
        span = slice(prompt - len(asked), prompt + len(answered))
        ids[row, span], mask[row, span] = [*asked, *answered], True
    arrays = jnp.asarray(ids), jnp.asarray(mask)
    (left, right), (left_mask, right_mask) = (jnp.split(array, [prompt], axis=1) for array in arrays)
    return Text(left, left_mask, right, right_mask)


def runner(model: Model, prompt: int, response: int) -> Callable[[Sequence[tuple[Ids, Ids]]], np.ndarray]:
    """Return a function that gives the logits [row, response, vocab] which predict each token of each response."""

    @jax.jit
    def run(params: Any, adapter: Any, text: Text) -> jax.Array:
        states = family.response_states(model.config, params, text, adapter=adapter, lora=model.lora)
        return family.logits(model.config, params, states)

    return lambda rows: np.asarray(run(model.params, model.adapter, as_text(rows, prompt, response)))


def their_logits(torch: Any, model: Any, prompt: Ids, response: Ids) -> np.ndarray:
    """Logits [response, vocab] of one text without padding."""
    with torch.no_grad():
        if model.config.is_encoder_decoder:
            read = [model.config.decoder_start_token_id, *response[:-1]]
            found = model(input_ids=torch.tensor([prompt]), decoder_input_ids=torch.tensor([read])).logits[0]
        else:
            found = model(torch.tensor([[*prompt, *response]])).logits[0, len(prompt) - 1 : -1]
    return found.float().numpy()


def their_continuation(torch: Any, model: Any, prompt: Ids, tokens: int) -> list[int]:
    """Continue greedily, past every end token."""
    model.generation_config.eos_token_id = None
    told = model.generate(torch.tensor([prompt]), max_new_tokens=tokens, do_sample=False)[0]
    return told[-tokens:].tolist()


@functools.partial(jax.jit, static_argnums=0, static_argnames="room")
def _prefill(config: Any, params: Any, ids: jax.Array, mask: jax.Array, *, room: int) -> Any:
    out = family.prefill(config, params, ids, mask, room=room)
    return family.logits(config, params, out.states), out.cache


@functools.partial(jax.jit, static_argnums=0)
def _step(config: Any, params: Any, ids: jax.Array, cache: Any, step: jax.Array) -> Any:
    out = family.decode_step(config, params, ids, cache, step=step)
    return family.logits(config, params, out.states), out.cache


def continue_greedily(model: Model, prompts: Sequence[Ids], tokens: int) -> tuple[list[list[int]], np.ndarray]:
    """Continue through the cache, one padded batch; returns the tokens, and the logits that each came from."""
    text = as_text([(prompt, ()) for prompt in prompts], max(map(len, prompts)), 0)
    logits, cache = _prefill(model.config, model.params, text.prompt_ids, text.prompt_mask, room=tokens)
    told, seen = [logits.argmax(-1)], [logits]
    for step in range(tokens - 1):
        ids = told[-1].astype(jnp.int32)
        logits, cache = _step(model.config, model.params, ids, cache, jnp.asarray(step, jnp.int32))
        told.append(logits.argmax(-1))
        seen.append(logits)
    return np.stack(told, axis=1).tolist(), np.stack(seen, axis=1)
