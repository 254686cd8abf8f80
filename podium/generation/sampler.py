"""Prompts in, completions out: encode, batch by length, sample, decode."""

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from podium.data.batches import pad_left
from podium.errors import UserError
from podium.generation.decode import Responses, respond
from podium.generation.sampling import Sampling
from podium.ops.loops import decode_unrolled
from podium.parallel import placement
from podium.parallel.alike import alike

if TYPE_CHECKING:
    from podium.models import Model

Prompt = str | Sequence[int] | Sequence[dict[str, str]]

# Prompt widths are rounded up to a multiple of this: few compiled programs, little padding.
WIDTH_STEP = 32


class Completions(NamedTuple):
    """One entry per prompt, in the order given. ids hold no padding and end with the end token where there is one."""

    texts: list[str]
    ids: list[list[int]]
    finish_reasons: list[str]
    num_tokens: list[int]
    prompt_ids: list[list[int]]


@functools.partial(alike, "the answers")
@functools.partial(
    jax.jit, static_argnames=("config", "lora", "max_new_tokens", "sampling", "eos_ids", "pad_id", "unroll")
)
def _respond(
    config: Any, params: Any, adapter: Any, ids: Any, mask: Any, seed: Any, rows: Any, **static: Any
) -> Responses:
    """Answer with a random key per row, made of the seed and its number among all prompts."""
    keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(jax.random.key(seed), rows)
    return respond(config, params, ids, mask, keys, adapter=adapter, **static)


def generate(
    model: "Model",
    prompts: Sequence[Prompt],
    *,
    max_new_tokens: int,
    temperature: float,
    seed: int,
    top_k: int = 0,
    top_p: float = 1.0,
    batch_size: int = 32,
    progress: Callable[[int, int], None] | None = None,
) -> Completions:
    """Answer each prompt: a text, a list of chat messages, or token ids.

    The answer to a prompt depends on the seed and its place in `prompts`, not on the batch it lands in. temperature 0
    is greedy. `progress(done, total)` is called after every batch. Raises UserError for a prompt that, with its
    answer, is longer than the model's context.
    """
    model, tokenizer = model.frozen(), model.tokenizer
    encoded = [_encode(tokenizer, prompt) for prompt in prompts]
    _check_lengths(encoded, max_new_tokens, model.config.max_position)
    ids: list[list[int]] = [[] for _ in prompts]
    finished = [False] * len(prompts)
    order = sorted(range(len(prompts)), key=lambda index: (len(encoded[index]), index))
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        width = -(-max(len(encoded[row]) for row in rows) // WIDTH_STEP) * WIDTH_STEP
        fill = batch_size - len(rows)
        prompt_ids, prompt_mask = pad_left([encoded[row] for row in rows] + [[]] * fill, width, tokenizer.pad_id)
        out = placement.fetch(
            _respond(
                model.config,
                model.params,
                model.adapter,
                prompt_ids,
                prompt_mask,
                np.uint32(seed),
                np.asarray(rows + [0] * fill, np.uint32),
                lora=model.lora,
                max_new_tokens=max_new_tokens,
                sampling=Sampling(temperature, top_k, top_p),
                eos_ids=tokenizer.eos_ids,
                pad_id=tokenizer.pad_id,
                unroll=decode_unrolled(model.config.layers, model.config.implementation),
            )
        )
        for place, row in enumerate(rows):
            ids[row] = out.ids[place][out.mask[place]].tolist()
            finished[row] = bool(out.finished[place])
        if progress is not None:
            progress(start + len(rows), len(order))
    return Completions(
        texts=[tokenizer.decode(row[:-1] if end else row) for row, end in zip(ids, finished, strict=True)],
        ids=ids,
        finish_reasons=["stop" if end else "length" for end in finished],
        num_tokens=[len(row) for row in ids],
        prompt_ids=encoded,
    )


def _encode(tokenizer: Any, prompt: Prompt) -> list[int]:
    if isinstance(prompt, str):
        return list(tokenizer.encode_prompt([{"role": "user", "content": prompt}]))
    if prompt and isinstance(prompt[0], dict):
        return list(tokenizer.encode_prompt(prompt))
    return [int(token) for token in prompt]  # type: ignore[arg-type]  # the remaining form is token ids


def _check_lengths(encoded: Sequence[Sequence[int]], max_new_tokens: int, max_position: int | None) -> None:
    for index, row in enumerate(encoded):
        if not row:
            raise UserError(f"prompt {index} is empty; give it at least one token")
        if max_position is not None and len(row) + max_new_tokens > max_position:
            raise UserError(
                f"prompt {index} has {len(row)} tokens; with {max_new_tokens} new ones it exceeds the model's "
                f"{max_position}: shorten it or lower max_new_tokens"
            )
