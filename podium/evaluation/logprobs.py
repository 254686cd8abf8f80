"""Compute the log-probabilities of given answers under a model, in batches of fixed shape."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from podium.data.batches import pad_left, pad_right
from podium.generation.sampler import WIDTH_STEP
from podium.losses.chunks import over_columns
from podium.losses.logprobs import token_logprobs
from podium.losses.masked import fill
from podium.models import family
from podium.models.bundle import Model
from podium.models.config import NetworkConfig
from podium.models.lora import LoraSpec
from podium.models.text import Text
from podium.parallel import placement
from podium.parallel.alike import alike

Tree = Any


def answer_logprobs(
    model: Model,
    prompt_ids: Sequence[Sequence[int]],
    answer_ids: Sequence[Sequence[int]],
    *,
    temperatures: tuple[float, ...],
    batch_size: int,
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """Sum log softmax(logits / temperature) over each answer's tokens; float64 [temperatures, answers].

    An empty answer has 0. Several temperatures cost one forward pass. Answers of like length share a batch; widths are
    rounded up, so that few programs are compiled. A figure does not depend on what else is in its batch.
    """
    if len(prompt_ids) != len(answer_ids):
        raise ValueError(f"{len(prompt_ids)} prompts for {len(answer_ids)} answers")
    model = model.frozen()
    sums = np.zeros((len(temperatures), len(answer_ids)))
    order = sorted(range(len(answer_ids)), key=lambda row: (len(prompt_ids[row]), len(answer_ids[row]), row))
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        fillers: list[Sequence[int]] = [[]] * (batch_size - len(rows))
        prompts = [prompt_ids[row] for row in rows] + fillers
        answers = [answer_ids[row] for row in rows] + fillers
        pad_id = model.tokenizer.pad_id
        text = Text(*pad_left(prompts, _width(prompts), pad_id), *pad_right(answers, _width(answers), pad_id))  # type: ignore[arg-type]  # jit takes NumPy arrays
        out = _sums(
            model.config,
            model.params,
            model.adapter,
            text,
            lora=model.lora,
            temperatures=temperatures,
        )
        sums[:, rows] = placement.fetch(out).astype(np.float64)[:, : len(rows)]
        if progress is not None:
            progress(start + len(rows), len(order))
    return sums


def _width(rows: Sequence[Sequence[int]]) -> int:
    return -(-max(1, *(len(row) for row in rows)) // WIDTH_STEP) * WIDTH_STEP


@functools.partial(alike, "the log-probabilities of answers")
@functools.partial(jax.jit, static_argnames=("config", "lora", "temperatures"))
def _sums(
    config: NetworkConfig,
    params: Tree,
    adapter: Tree | None,
    text: Text,
    *,
    lora: LoraSpec | None,
    temperatures: tuple[float, ...],
) -> jax.Array:
    """Sum per temperature and row over the answer."""
    states = family.response_states(config, params, text, adapter=adapter, lora=lora)

    def logprobs(states: jax.Array, ids: jax.Array) -> tuple[jax.Array, ...]:
        logits = family.logits(config, params, states)
        return tuple(token_logprobs(logits, ids, temperature=t) for t in temperatures)

    tokens, counts = text.response_ids, text.response_mask
    result = over_columns(logprobs, states, tokens, vocab=config.vocab_size)
    return jnp.stack([fill(one, counts).sum(axis=1) for one in result])
