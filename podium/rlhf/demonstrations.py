"""Demonstrations as packed rows of one width: which share a row, and their arrays."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from podium.data.batches import permutation
from podium.data.records import DemonstrationRecord
from podium.data.tokenizer import Tokenizer
from podium.errors import UserError
from podium.models.config import NetworkConfig
from podium.models.packing import Example, Size, enclosing, pack, size
from podium.rlhf.sft import DemonstrationBatch

# Without packing, rows are as wide as the longest demonstration, rounded up to this.
WIDTH_STEP = 32

# Indices of the demonstrations in a row; a row without any is a filler.
PackedRow = tuple[int, ...]


class Demonstration(NamedTuple):
    """One encoded record, and how much each of its tokens counts."""

    prompt: list[int]
    response: list[int]
    weight: float

    @property
    def example(self) -> Example:
        return Example(self.prompt, [self.response])


def encode(records: Sequence[DemonstrationRecord], tokenizer: Tokenizer, max_length: int) -> list[Demonstration]:
    """Encode every record; raises UserError for one that is longer than `max_length` tokens."""
    encoded = []
    for record in records:
        prompt, response = tokenizer.encode_prompt(record.prompt), tokenizer.encode_response(record.response)
        if len(prompt) + len(response) > max_length:
            raise UserError(
                f"demonstration {record.id}: {len(prompt) + len(response)} tokens of prompt and response, "
                f"data.max_length is {max_length}; raise it, or leave the demonstration out"
            )
        encoded.append(Demonstration(prompt, response, 1.0 if record.weight is None else record.weight))
    return encoded


def sizes_of(config: NetworkConfig, demonstrations: Sequence[Demonstration]) -> list[Size]:
    """Places that each demonstration takes in the arrays of a network."""
    return [size(config, demonstration.example) for demonstration in demonstrations]


def width_of(sizes: Sequence[Size], *, max_prompt_length: int, max_length: int, packing: bool) -> Size:
    """Choose the width of every row of a run: one program is compiled.

    A packed row has `max_length` places, of which prompts that stand apart get `max_prompt_length`, and more only
    where a single demonstration needs more.
    """
    longest = Size(*(max(values) for values in zip(*sizes, strict=True)))
    if not packing:
        return enclosing([longest], WIDTH_STEP)
    prompt = max(longest.prompt, max_prompt_length) if longest.prompt else 0
    return Size(max(longest.row, max_length - prompt), prompt)


def epoch_rows(sizes: Sequence[Size], width: Size, *, packing: bool, seed: int, epoch: int) -> list[PackedRow]:
    """Put the demonstrations of an epoch into rows: in shuffled order, each into the first row with room for it.

    A pure function of its arguments; every demonstration comes once. Raises ValueError for one that fits no row.
    """
    order = permutation(len(sizes), seed, epoch)
    if not packing:
        return [(int(index),) for index in order]
    wanted = np.asarray(sizes)
    if (wanted > np.asarray(width)).any():
        raise ValueError(f"demonstrations of up to {wanted.max(axis=0).tolist()} places, a row has {list(width)}")
    # At most as many rows as demonstrations; the one behind those in use is empty, so that something always fits.
    free = np.tile(np.asarray(width), (len(sizes), 1))
    rows: list[list[int]] = []
    for index in order:
        place = int(np.argmax((free[: len(rows) + 1] >= wanted[index]).all(axis=1)))
        if place == len(rows):
            rows.append([])
        rows[place].append(int(index))
        free[place] -= wanted[index]
    # Early rows are the fullest: shuffled, no batch has more of them than another.
    return [tuple(rows[place]) for place in permutation(len(rows), seed, epoch)]


def batches_of(rows: Sequence[PackedRow], count: int) -> list[tuple[PackedRow, ...]]:
    """Cut an epoch's rows into batches of `count`; the last one is filled up."""
    filled = [*rows, *[()] * (-len(rows) % count)]
    return [tuple(filled[start : start + count]) for start in range(0, len(filled), count)]


def find_step(step: int, steps_in: Callable[[int], int]) -> tuple[int, int]:
    """Return (epoch, step within it) of a step: epochs differ in their number of rows, and so of steps."""
    epoch = 0
    while step >= (count := steps_in(epoch)):
        step -= count
        epoch += 1
    return epoch, step


def to_arrays(
    config: NetworkConfig, demonstrations: Sequence[Demonstration], rows: Sequence[PackedRow], width: Size, pad_id: int
) -> DemonstrationBatch:
    """Lay rows out as arrays; a filler has neither tokens nor weight."""
    packed, _ = pack(config, [[demonstrations[index].example for index in row] for row in rows], width, pad_id)
    # By segment, which count from 1 along a row.
    weights = np.zeros((len(rows), 1 + max(map(len, rows))), np.float32)
    for place, row in enumerate(rows):
        weights[place, 1 : 1 + len(row)] = [demonstrations[index].weight for index in row]
    ids, segment, response = (np.asarray(array) for array in (packed.ids, packed.segment, packed.response))
    counts = np.where(response, np.take_along_axis(weights, segment, axis=1), np.float32(0))
    return DemonstrationBatch(packed, _behind(ids), _behind(counts))  # type: ignore[arg-type]  # NumPy for jit


def _behind(array: np.ndarray) -> np.ndarray:
    """Give each place of [rows, width] what stands one place behind it; the last one gets 0."""
    return np.pad(array[:, 1:], ((0, 0), (0, 1)))
