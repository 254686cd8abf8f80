"""Preference records as arrays of fixed shapes, in batches of similar length."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from podium.data.batches import permutation
from podium.data.records import PreferenceRecord
from podium.data.tokenizer import Tokenizer
from podium.errors import UserError
from podium.models.config import NetworkConfig
from podium.models.packing import Example, Size, enclosing, pack, size
from podium.rlhf.reward import Comparisons

# Array widths are multiples of this, and one epoch uses at most this many of them: each is a compiled program.
WIDTH_STEP = 32
MAX_WIDTHS = 3


class Comparison(NamedTuple):
    """One encoded record: token ids of the prompt and of each candidate, and what is known of their order."""

    prompt: list[int]
    candidates: list[list[int]]
    ranks: list[int]
    weight: float
    margin: float

    @property
    def example(self) -> Example:
        """The prompt with all its candidates, as they share a row."""
        return Example(self.prompt, self.candidates)

    @property
    def texts(self) -> list[Example]:
        """Prompt and candidate, for each candidate on its own."""
        return [Example(self.prompt, [candidate]) for candidate in self.candidates]


class Batch(NamedTuple):
    """Which comparisons make a batch, and the widths of its arrays; index -1 is a filler."""

    rows: tuple[int, ...]
    width: Size


def encode(records: Sequence[PreferenceRecord], tokenizer: Tokenizer, max_length: int) -> list[Comparison]:
    """Encode every record; raises UserError for one that is longer than `max_length` tokens."""
    encoded = []
    for record in records:
        prompt = tokenizer.encode_prompt(record.prompt)
        candidates = [tokenizer.encode_response(response) for response in record.responses]
        longest = len(prompt) + max(map(len, candidates))
        if longest > max_length:
            raise UserError(
                f"comparison {record.id}: {longest} tokens of prompt and response, data.max_length is {max_length}; "
                "raise it, or leave the comparison out"
            )
        weight = 1.0 if record.weight is None else record.weight
        encoded.append(Comparison(prompt, candidates, list(record.ranks), weight, record.margin or 0.0))
    return encoded


def widths(lengths: Sequence[int]) -> list[int]:
    """Choose up to MAX_WIDTHS array widths for sequences of these lengths, so that little is padding."""
    edges = np.quantile(np.asarray(lengths), [0.5, 0.85, 1.0], method="higher")[-MAX_WIDTHS:]
    return sorted({int(-(-edge // WIDTH_STEP) * WIDTH_STEP) for edge in edges})


def sizes_of(config: NetworkConfig, comparisons: Sequence[Comparison]) -> list[Size]:
    """Places that each comparison takes in the arrays of a network."""
    return [size(config, comparison.example) for comparison in comparisons]


def epoch_batches(sizes: Sequence[Size], batch_size: int, *, seed: int, epoch: int) -> list[Batch]:
    """Shuffle an epoch into batches of similar length; a pure function of its arguments.

    Every comparison comes once. What does not fill a batch of its width moves up to the next; only one batch, of the
    largest width, has fillers. Prompts that stand apart are as wide as the longest of the batches' length.
    """
    lengths = [sum(one) for one in sizes]
    order = permutation(len(lengths), seed, epoch)
    batches: list[Batch] = []
    rest: list[int] = []
    ladder = widths(lengths)
    width = Size(0, 0)
    for low, high in zip([0, *ladder], ladder, strict=False):
        width = enclosing((one for one, length in zip(sizes, lengths, strict=True) if length <= high), WIDTH_STEP)
        rows = rest + [int(row) for row in order if low < lengths[row] <= high]
        full = len(rows) // batch_size * batch_size
        batches += [Batch(tuple(rows[i : i + batch_size]), width) for i in range(0, full, batch_size)]
        rest = rows[full:]
    if rest:
        batches.append(Batch((*rest, *[-1] * (batch_size - len(rest))), width))
    return [batches[place] for place in permutation(len(batches), seed, epoch)]


def to_arrays(
    config: NetworkConfig, comparisons: Sequence[Comparison], batch: Batch, *, candidates: int, pad_id: int
) -> Comparisons:
    """Lay a batch out as packed rows of the batch's width."""
    rows = len(batch.rows)
    examples = [[comparisons[row].example] if row >= 0 else [] for row in batch.rows]
    packed, columns = pack(config, examples, batch.width, pad_id)
    ends, ranks = np.zeros((rows, candidates), np.int32), np.ones((rows, candidates), np.int32)
    present = np.zeros((rows, candidates), bool)
    weight, margin = np.zeros(rows, np.float32), np.zeros(rows, np.float32)
    for place, row in enumerate(batch.rows):
        if row < 0:
            continue
        comparison = comparisons[row]
        weight[place], margin[place] = comparison.weight, comparison.margin
        count = len(comparison.candidates)
        ends[place, :count], ranks[place, :count] = columns[place][0], comparison.ranks
        present[place, :count] = True
    return Comparisons(packed, ends, ranks, present, weight, margin)  # type: ignore[arg-type]  # NumPy for jit
