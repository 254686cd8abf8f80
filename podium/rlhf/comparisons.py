"""Preference records as arrays of fixed shapes, in batches of similar length."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from podium.data.records import PreferenceRecord
from podium.data.tokenizer import Tokenizer
from podium.errors import UserError
from podium.rlhf.reward import Comparisons

# Array widths are multiples of this, and one epoch uses at most this many of them: each is a compiled program.
WIDTH_STEP = 32
MAX_WIDTHS = 3


class Comparison(NamedTuple):
    """One encoded record: the token ids of prompt + response for each candidate, and what is known of their order."""

    sequences: list[list[int]]
    ranks: list[int]
    weight: float
    margin: float

    @property
    def length(self) -> int:
        return max(len(sequence) for sequence in self.sequences)


class Batch(NamedTuple):
    """Which comparisons make a batch, and the width of its arrays; index -1 is a filler."""

    rows: tuple[int, ...]
    width: int


def encode(records: Sequence[PreferenceRecord], tokenizer: Tokenizer, max_length: int) -> list[Comparison]:
    """Encode every record; raises UserError for one that is longer than `max_length` tokens."""
    encoded = []
    for record in records:
        prompt = tokenizer.encode_prompt(record.prompt)
        sequences = [prompt + tokenizer.encode_response(response) for response in record.responses]
        longest = max(len(sequence) for sequence in sequences)
        if longest > max_length:
            raise UserError(
                f"comparison {record.id}: {longest} tokens of prompt and response, data.max_length is {max_length}; "
                "raise it, or leave the comparison out"
            )
        weight = 1.0 if record.weight is None else record.weight
        encoded.append(Comparison(sequences, list(record.ranks), weight, record.margin or 0.0))
    return encoded


def widths(lengths: Sequence[int]) -> list[int]:
    """Choose up to MAX_WIDTHS array widths for sequences of these lengths, so that little is padding."""
    edges = np.quantile(np.asarray(lengths), [0.5, 0.85, 1.0], method="higher")[-MAX_WIDTHS:]
    return sorted({int(-(-edge // WIDTH_STEP) * WIDTH_STEP) for edge in edges})


def epoch_batches(lengths: Sequence[int], batch_size: int, *, seed: int, epoch: int) -> list[Batch]:
    """Shuffle an epoch into batches of similar length; a pure function of its arguments.

    Every comparison comes once. What does not fill a batch of its width moves up to the next; only one batch, of the
    largest width, has fillers.
    """
    rng = np.random.default_rng((seed, epoch))
    order = rng.permutation(len(lengths))
    batches, rest = [], []
    ladder = widths(lengths)
    for low, width in zip([0, *ladder], ladder, strict=False):
        rows = rest + [int(row) for row in order if low < lengths[row] <= width]
        full = len(rows) // batch_size * batch_size
        batches += [Batch(tuple(rows[i : i + batch_size]), width) for i in range(0, full, batch_size)]
        rest = rows[full:]
    if rest:
        batches.append(Batch((*rest, *[-1] * (batch_size - len(rest))), ladder[-1]))
    return [batches[i] for i in rng.permutation(len(batches))]


def to_arrays(comparisons: Sequence[Comparison], batch: Batch, *, candidates: int, pad_id: int) -> Comparisons:
    """Lay a batch out as arrays [rows, candidates, width], sequences aligned left."""
    shape = (len(batch.rows), candidates, batch.width)
    ids, mask = np.full(shape, pad_id, np.int32), np.zeros(shape, bool)
    ranks, present = np.ones(shape[:2], np.int32), np.zeros(shape[:2], bool)
    weight, margin = np.zeros(shape[0], np.float32), np.zeros(shape[0], np.float32)
    for place, row in enumerate(batch.rows):
        if row < 0:
            # A filler is one token long: attention over nothing at all would be a special case.
            mask[place, :, 0] = True
            continue
        comparison = comparisons[row]
        weight[place], margin[place] = comparison.weight, comparison.margin
        for column, sequence in enumerate(comparison.sequences):
            ids[place, column, : len(sequence)] = sequence
            mask[place, column, : len(sequence)] = True
            ranks[place, column], present[place, column] = comparison.ranks[column], True
        mask[place, len(comparison.sequences) :, 0] = True
    return Comparisons(ids, mask, ranks, present, weight, margin)  # type: ignore[arg-type]  # jit takes NumPy arrays


def in_order(lengths: Sequence[int], batch_size: int) -> Iterator[Batch]:
    """Go through comparisons once by length, for scoring."""
    order = sorted(range(len(lengths)), key=lambda row: (lengths[row], row))
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        width = -(-max(lengths[row] for row in rows) // WIDTH_STEP) * WIDTH_STEP
        yield Batch((*rows, *[-1] * (batch_size - len(rows))), width)
