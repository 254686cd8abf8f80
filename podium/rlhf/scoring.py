"""Score texts with a trained reward model."""

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from podium.models.packing import Example, Packed, enclosing, pack, size
from podium.rlhf.comparisons import WIDTH_STEP
from podium.rlhf.networks import Network

if TYPE_CHECKING:
    from podium.models import Model


@functools.partial(jax.jit, static_argnames="network")
def _scores(network: Network, weights: Any, packed: Packed, ends: Any) -> jax.Array:
    return network.packed_scores({}, weights, packed, ends)[:, 0]


def score_ids(
    model: "Model",
    texts: Sequence[Example],
    *,
    batch_size: int = 16,
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """Raw scores, before gain and bias, of texts of any lengths, each a prompt with one response; float32 [texts]."""
    network = Network(model.config, model.lora)
    weights = {"base": model.params, "head": model.head}
    if model.adapter:
        weights["adapter"] = model.adapter
    scores = np.zeros(len(texts), np.float32)
    sizes = [size(model.config, text) for text in texts]
    order = sorted(range(len(texts)), key=lambda row: (sum(sizes[row]), sizes[row], row))
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        width = enclosing((sizes[row] for row in rows), WIDTH_STEP)
        fill: list[list[Example]] = [[]] * (batch_size - len(rows))
        packed, ends = pack(model.config, [*([texts[row]] for row in rows), *fill], width, model.tokenizer.pad_id)
        columns = np.array([[row[0][0] if row else 0] for row in ends], np.int32)
        scores[rows] = jax.device_get(_scores(network, weights, packed, columns))[: len(rows)]
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
    texts = [encode_text(model, *pair) for pair in zip(prompts, responses, strict=True)]
    return model.gain * score_ids(model, texts, batch_size=batch_size, progress=progress) + model.bias


def encode_text(model: "Model", prompt: Any, response: str | Sequence[int], *, end: bool = True) -> Example:
    """Encode a prompt (messages or token ids) and a response (text or token ids) for a reward model.

    A response given as text ends with the end token where `end` says so.
    """
    tokenizer = model.tokenizer
    head = tokenizer.encode_prompt(prompt) if prompt and isinstance(prompt[0], dict) else list(prompt)
    tail = tokenizer.encode_response(response, end=end) if isinstance(response, str) else list(response)
    return Example(head, [tail])
