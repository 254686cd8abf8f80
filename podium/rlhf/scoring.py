"""Score texts with a trained reward model."""

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from podium.models.packing import Example, Packed, enclosing, for_rows, pack, size
from podium.parallel import placement
from podium.parallel.alike import alike
from podium.rlhf.comparisons import WIDTH_STEP
from podium.rlhf.networks import Network
from podium.training.progress import Progress

if TYPE_CHECKING:
    from podium.data.tokenizer import Tokenizer
    from podium.models import Model


@functools.partial(alike, "the scores")
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
    """Raw scores, before gain and bias, of texts of any lengths, each a prompt with one response; float32 [texts].

    Equal texts are scored once: it is cheaper, and none wins over itself by the rounding of another batch.
    """
    model = model.frozen()
    config = for_rows(model.config, texts)
    network = Network(config, model.lora)
    weights = {"base": model.params, "head": model.head}
    if model.adapter:
        weights["adapter"] = model.adapter
    keys = [(tuple(text.prompt), tuple(text.responses[0])) for text in texts]
    place = {key: index for index, key in enumerate(dict.fromkeys(keys))}
    texts = [Example(prompt, [response]) for prompt, response in place]
    scores = np.zeros(len(texts), np.float32)
    sizes = [size(config, text) for text in texts]
    order = sorted(range(len(texts)), key=lambda row: (sum(sizes[row]), sizes[row], row))
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        width = enclosing((sizes[row] for row in rows), WIDTH_STEP)
        fill: list[list[Example]] = [[]] * (batch_size - len(rows))
        packed, ends = pack(config, [*([texts[row]] for row in rows), *fill], width, model.tokenizer.pad_id)
        columns = np.array([[row[0][0] if row else 0] for row in ends], np.int32)
        scores[rows] = placement.fetch(_scores(network, weights, packed, columns))[: len(rows)]
        if progress is not None:
            progress((start + len(rows)) * len(keys) // len(order), len(keys))
    return scores[[place[key] for key in keys]]


def score_shown(model: "Model", texts: Sequence[Example], label: str, *, batch_size: int = 16) -> np.ndarray:
    """Raw scores as `score_ids` gives them, with progress on the terminal under this label."""
    with Progress(len(texts), label, unit="answer") as progress:
        return score_ids(model, texts, batch_size=batch_size, progress=lambda done, _: progress.update(done))


def score(
    model: "Model",
    prompts: Sequence[Any],
    responses: Sequence[str | Sequence[int]],
    *,
    batch_size: int = 16,
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """Rewards, gain * score + bias, of responses to prompts; float32 [responses].

    A prompt is a list of messages or its token ids. A response is read with an end behind it, whether it has one or
    not; where model.read_at is last, token ids are read as they are.
    """
    texts = [encode_text(model, *pair) for pair in zip(prompts, responses, strict=True)]
    return model.gain * score_ids(model, texts, batch_size=batch_size, progress=progress) + model.bias


def encode_text(model: "Model", prompt: Any, response: str | Sequence[int], *, finished: bool = True) -> Example:
    """Encode a prompt (messages or token ids) and a response (text or token ids) for a reward model.

    This alone decides what a reward model reads of a response that was cut off: what it has at its end, or nothing
    where model.read_at is last. A text was cut off where `finished` says so, ids where they have no end token.
    """
    tokenizer, at_end = model.tokenizer, model.read_at == "end"
    head = tokenizer.encode_prompt(prompt) if prompt and isinstance(prompt[0], dict) else list(prompt)
    if isinstance(response, str):
        return Example(head, [tokenizer.encode_response(response, end=finished or at_end)])
    return Example(head, [tokenizer.ended(response) if at_end else list(response)])


def encode_answers(
    model: "Model", writer: "Tokenizer", prompts: Sequence[Any], answers: Sequence[Sequence[int]]
) -> list[Example]:
    """Encode answers in the tokens of another model, the end included where it wrote one, for a reward model.

    Where both have the same tokens the answers stay as they were written, as PPO scores them; else their texts count.
    """
    if model.tokenizer.same_as(writer):
        return [encode_text(model, prompt, answer) for prompt, answer in zip(prompts, answers, strict=True)]
    return [
        encode_text(model, prompt, writer.decode(answer), finished=answer[-1] in writer.eos_ids)
        for prompt, answer in zip(prompts, answers, strict=True)
    ]
