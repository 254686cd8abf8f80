"""Batches of fixed shape, in NumPy, as pure functions of the data, the seed and the step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from podium.data.records import PreferenceRecord, PromptRecord
from podium.data.tokenizer import Tokenizer

Ids = NDArray[np.int32]
Mask = NDArray[np.bool_]


class Padded(NamedTuple):
    """Token rows of one length; `mask` is true at real tokens."""

    ids: Ids
    mask: Mask


@dataclass(frozen=True)
class Comparison:
    """The tokens of one preference record: for each response, the prompt and the response together."""

    sequences: tuple[tuple[int, ...], ...]
    ranks: tuple[int, ...]
    margin: float
    weight: float


class PreferenceBatch(NamedTuple):
    """Comparisons of one shape.

    ids, mask: [groups, candidates, time], padded on the right. ranks: [groups, candidates], 1 is best, 0 where there is
    no candidate. candidates: boolean, false where there is none. margin (0 where none is known) and weight: [groups].
    """

    ids: Ids
    mask: Mask
    ranks: NDArray[np.int32]
    candidates: Mask
    margin: NDArray[np.float32]
    weight: NDArray[np.float32]


class PromptBatch(NamedTuple):
    """Prompts of one shape: ids and mask [prompts, time], padded on the left; `rows` index the records."""

    ids: Ids
    mask: Mask
    rows: NDArray[np.int64]


def permutation(n: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """Return the order of n rows in one epoch.

    Sorts the raw output of Philox: NumPy promises its bit streams for all versions, of `Generator.permutation` it does
    not.
    """
    draws = np.random.Philox(key=np.array([seed, epoch], dtype=np.uint64)).random_raw(n)
    return np.argsort(draws, kind="stable")


def batch_indices(n: int, batch_size: int, seed: int, step: int) -> NDArray[np.int64]:
    """Return the rows of one step: step k takes places k*batch_size ... of the endless sequence of shuffled epochs.

    Depends on its arguments only, so a run that resumes at a step sees the rows it would have seen. A batch may reach
    into the next epoch: every row is seen once an epoch, and none is left over.
    """
    if n < 1:
        raise ValueError(f"no rows to draw from: n is {n}")
    places = np.arange(step * batch_size, (step + 1) * batch_size)
    epochs = places // n
    orders = {int(epoch): permutation(n, seed, int(epoch)) for epoch in np.unique(epochs)}
    return np.array(
        [orders[int(epoch)][place % n] for epoch, place in zip(epochs, places, strict=True)], dtype=np.int64
    )


def steps_per_epoch(n: int, batch_size: int) -> int:
    """Return how many steps see every row at least once."""
    return -(-n // batch_size)


def pad_right(rows: Sequence[Sequence[int]], length: int, pad_id: int) -> Padded:
    """Put padding after each row. A row longer than `length` is an error: nothing is ever cut."""
    return _pad(rows, length, pad_id, left=False)


def pad_left(rows: Sequence[Sequence[int]], length: int, pad_id: int) -> Padded:
    """Put padding before each row, so that generation goes on at the same place in all of them."""
    return _pad(rows, length, pad_id, left=True)


def _pad(rows: Sequence[Sequence[int]], length: int, pad_id: int, *, left: bool) -> Padded:
    ids = np.full((len(rows), length), pad_id, dtype=np.int32)
    mask = np.zeros((len(rows), length), dtype=np.bool_)
    for place, row in enumerate(rows):
        if len(row) > length:
            raise ValueError(f"row {place} has {len(row)} tokens, more than {length}")
        cells = slice(length - len(row), length) if left else slice(0, len(row))
        ids[place, cells] = row
        mask[place, cells] = True
    return Padded(ids, mask)


def pad_sequences(
    prompts: Sequence[Sequence[int]],
    responses: Sequence[Sequence[int]],
    *,
    prompt_length: int,
    response_length: int,
    pad_id: int,
) -> Padded:
    """Return prompts padded on the left, then responses padded on the right: [rows, prompt_length + response_length].

    The real tokens of a row stand next to each other, so positions counted along the mask have no gap.
    """
    before = pad_left(prompts, prompt_length, pad_id)
    after = pad_right(responses, response_length, pad_id)
    return Padded(np.concatenate([before.ids, after.ids], axis=1), np.concatenate([before.mask, after.mask], axis=1))


def bucket_length(longest: int, buckets: Sequence[int]) -> int:
    """Return the smallest bucket that holds `longest`: a few shapes compile a few times, and little is padding."""
    fitting = [length for length in buckets if length >= longest]
    if not fitting:
        raise ValueError(f"{longest} tokens fit none of the lengths {list(buckets)}")
    return min(fitting)


def encode_preferences(records: Sequence[PreferenceRecord], tokenizer: Tokenizer) -> list[Comparison]:
    """Encode each record once."""
    return [_encode_comparison(record, tokenizer) for record in records]


def _encode_comparison(record: PreferenceRecord, tokenizer: Tokenizer) -> Comparison:
    prompt = tokenizer.encode_prompt(record.prompt)
    return Comparison(
        sequences=tuple((*prompt, *tokenizer.encode_response(response)) for response in record.responses),
        ranks=tuple(record.ranks),
        margin=0.0 if record.margin is None else record.margin,
        weight=1.0 if record.weight is None else record.weight,
    )


def encode_prompts(records: Sequence[PromptRecord], tokenizer: Tokenizer) -> list[list[int]]:
    """Encode each prompt once, up to where the answer begins."""
    return [tokenizer.encode_prompt(record.prompt) for record in records]


def preference_batch(
    comparisons: Sequence[Comparison], *, groups: int, candidates: int, length: int, pad_id: int
) -> PreferenceBatch:
    """Lay comparisons out in one shape; rows beyond the last comparison have weight 0 and no candidate.

    A comparison of more than `candidates` responses is an error: nothing is ever cut.
    """
    ids = np.full((groups, candidates, length), pad_id, dtype=np.int32)
    mask = np.zeros((groups, candidates, length), dtype=np.bool_)
    ranks = np.zeros((groups, candidates), dtype=np.int32)
    margin, weight = np.zeros((2, groups), dtype=np.float32)
    for place, item in enumerate(comparisons):
        count = len(item.sequences)
        if count > candidates:
            raise ValueError(f"comparison {place} has {count} responses, more than {candidates}")
        ids[place, :count], mask[place, :count] = pad_right(item.sequences, length, pad_id)
        ranks[place, :count] = item.ranks
        margin[place], weight[place] = item.margin, item.weight
    return PreferenceBatch(ids, mask, ranks, ranks > 0, margin, weight)


def preference_batches(
    comparisons: Sequence[Comparison],
    *,
    batch_size: int,
    candidates: int,
    buckets: Sequence[int],
    pad_id: int,
    seed: int,
    first_step: int,
    last_step: int,
) -> Iterator[PreferenceBatch]:
    """Yield the shuffled batches of the steps from `first_step` up to, not including, `last_step`.

    Each is as long as the smallest of `buckets` that holds it; one bucket gives all batches the same shape.
    """
    for step in range(first_step, last_step):
        chosen = [comparisons[row] for row in batch_indices(len(comparisons), batch_size, seed, step)]
        length = bucket_length(longest(chosen), buckets)
        yield preference_batch(chosen, groups=batch_size, candidates=candidates, length=length, pad_id=pad_id)


def preference_passes(
    comparisons: Sequence[Comparison], *, batch_size: int, candidates: int, buckets: Sequence[int], pad_id: int
) -> Iterator[PreferenceBatch]:
    """Yield each comparison once, in order, for evaluation; the last batch is filled with empty rows."""
    for start in range(0, len(comparisons), batch_size):
        chosen = comparisons[start : start + batch_size]
        length = bucket_length(longest(chosen), buckets)
        yield preference_batch(chosen, groups=batch_size, candidates=candidates, length=length, pad_id=pad_id)


def longest(comparisons: Sequence[Comparison]) -> int:
    """Return the tokens of the longest sequence."""
    return max((len(sequence) for item in comparisons for sequence in item.sequences), default=0)


def prompt_batches(
    prompts: Sequence[Sequence[int]],
    *,
    batch_size: int,
    length: int,
    pad_id: int,
    seed: int,
    first_step: int,
    last_step: int,
) -> Iterator[PromptBatch]:
    """Yield shuffled prompts, padded on the left, for the steps from `first_step` up to, not including, `last_step`."""
    for step in range(first_step, last_step):
        rows = batch_indices(len(prompts), batch_size, seed, step)
        yield PromptBatch(*pad_left([prompts[row] for row in rows], length, pad_id), rows)
