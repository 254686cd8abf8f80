"""Score texts with a trained reward model."""

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from podium.data.batches import pad_right
from podium.rlhf.comparisons import WIDTH_STEP
from podium.rlhf.networks import Network, sequence_scores

if TYPE_CHECKING:
    from podium.models import Model


@functools.partial(jax.jit, static_argnames="network")
def _scores(network: Network, weights: Any, ids: Any, mask: Any) -> jax.Array:
    return sequence_scores(network, {}, weights, ids, mask)


def score_ids(
    model: "Model",
    sequences: Sequence[Sequence[int]],
    *,
    batch_size: int = 16,
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """Raw scores, before gain and bias, of token sequences of any lengths; float32 [sequences]."""
    network = Network(model.config, model.lora)
    weights = {"base": model.params, "head": model.head}
    if model.adapter:
        weights["adapter"] = model.adapter
    scores = np.zeros(len(sequences), np.float32)
    order = sorted(range(len(sequences)), key=lambda row: (len(sequences[row]), row))
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        width = -(-max(len(sequences[row]) for row in rows) // WIDTH_STEP) * WIDTH_STEP
        fill = [()] * (batch_size - len(rows))
        ids, mask = pad_right([*(sequences[row] for row in rows), *fill], width, model.tokenizer.pad_id)
        scores[rows] = jax.device_get(_scores(network, weights, ids, mask))[: len(rows)]
        if progress is not None:
            progress(start + len(rows), len(order))
    return scores


def score(
    model: "Model",
    prompts: Sequence[Any],
    responses: Sequence[str | Sequence[int]],
    *,
    batch_size: int = 16,
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """Rewards, gain * score + bias, of responses to prompts; float32 [responses].

    A prompt is a list of messages or its token ids. A response given as text is taken as ended; given as token ids it
    is scored as it is, so that one that was cut off is scored without an end.
    """
    tokenizer = model.tokenizer
    sequences = []
    for prompt, response in zip(prompts, responses, strict=True):
        head = tokenizer.encode_prompt(prompt) if prompt and isinstance(prompt[0], dict) else list(prompt)
        tail = tokenizer.encode_response(response) if isinstance(response, str) else list(response)
        sequences.append(head + tail)
    return model.gain * score_ids(model, sequences, batch_size=batch_size, progress=progress) + model.bias
