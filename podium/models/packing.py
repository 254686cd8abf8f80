"""Lay texts of any lengths out in rows of one width, in NumPy; the network then keeps them apart.

Every token has a segment (which text) and a branch within it: 0 for the prompt, k for its k-th response. Responses of
one segment share its prompt and do not see each other. How depends on the network (`config.packing`):

- joined: prompt and responses stand in one row, the prompt once;
- apart: prompts stand in rows of their own, for an encoder; `config.lead` precedes each response;
- whole: a network that reads in both directions cannot share a prompt: each response stands behind a copy of it, as a
  segment of its own.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import jax
import numpy as np

from podium.models.config import NetworkConfig
from podium.ops.platform import resolve

# What a TPU computes in the time in which it reads a byte of its memory: 197e12 operations and 819e9 bytes a second, as
# published for v5e.
OPERATIONS_PER_BYTE = 240


class Example(NamedTuple):
    """A prompt with one or more responses, as token ids."""

    prompt: Sequence[int]
    responses: Sequence[Sequence[int]]


class Size(NamedTuple):
    """Tokens of an example, or the width of rows: of the rows with the responses, and of the prompts' own (or 0)."""

    row: int
    prompt: int


class Packed(NamedTuple):
    """Arrays [rows, width]; those of prompts that stand apart [rows, prompt width], which may be 0.

    mask: boolean, real tokens; segment: int, from 1, 0 at padding; response: boolean, true at tokens of a response,
    which the state one place before predicts where a segment has a single response.
    """

    ids: jax.Array
    mask: jax.Array
    segment: jax.Array
    branch: jax.Array
    response: jax.Array
    prompt_ids: jax.Array
    prompt_mask: jax.Array
    prompt_segment: jax.Array


class Layout(NamedTuple):
    """packed, and ends: per row and example the column of each response's last token."""

    packed: Packed
    ends: list[list[list[int]]]


def for_rows(config: NetworkConfig, examples: Iterable[Example]) -> NetworkConfig:
    """Decide whether the responses of these examples share their prompts.

    The kernel for TPUs tells texts apart by segments alone: a prompt that is shared takes the reference, which writes
    scores of row x row. So it is repeated where the tokens that this adds cost less than the scores would.
    """
    if config.packing != "joined" or resolve(config.implementation) != "tpu":
        return config
    repeated = scores = 0
    for prompt, responses in examples:
        repeated += len(prompt) * (len(responses) - 1)
        scores += (len(prompt) + sum(map(len, responses))) ** 2
    # Forward 2 operations a weight and token, backward 4. Scores and weights of a head, float32, are written or read
    # about ten times.
    weights = config.embed * (config.head_dim * 2 * (config.heads + config.kv_heads) + (2 + config.gated) * config.mlp)
    operations, moved = 6 * weights * repeated, 10 * 4 * config.heads * scores
    return config.replace(share_prompts=operations > OPERATIONS_PER_BYTE * moved)


def size(config: NetworkConfig, example: Example) -> Size:
    """Count the places that an example takes."""
    prompt, lead = len(example.prompt), len(config.lead)
    responses = sum(len(response) + lead for response in example.responses)
    if config.packing == "joined":
        return Size(prompt + responses, 0)
    if config.packing == "apart":
        return Size(responses, prompt)
    return Size(prompt * len(example.responses) + responses, 0)


def enclosing(sizes: Iterable[Size], step: int) -> Size:
    """The smallest widths in multiples of `step` that hold each of the sizes: few of them, so that few programs are."""
    return Size(*(-(-max(values) // step) * step for values in zip(*sizes, strict=True)))


def pack(config: NetworkConfig, rows: Sequence[Sequence[Example]], width: Size, pad_id: int) -> Layout:
    """Put the examples of each row one behind the other. Raises ValueError where they do not fit."""
    cells = _Cells(len(rows), width, pad_id)
    ends = [cells.fill(config, place, examples) for place, examples in enumerate(rows)]
    return Layout(cells.packed(), ends)


class _Cells:
    """The arrays of `Packed` while they are filled."""

    def __init__(self, rows: int, width: Size, pad_id: int):
        shape, prompt_shape = (rows, width.row), (rows, width.prompt)
        self.ids, self.prompt_ids = np.full(shape, pad_id, np.int32), np.full(prompt_shape, pad_id, np.int32)
        self.segment, self.prompt_segment = np.zeros(shape, np.int32), np.zeros(prompt_shape, np.int32)
        self.branch, self.response = np.zeros(shape, np.int32), np.zeros(shape, bool)

    def packed(self) -> Packed:
        prompts = self.prompt_ids, self.prompt_segment > 0, self.prompt_segment
        rows = self.ids, self.segment > 0, self.segment, self.branch, self.response
        return Packed(*rows, *prompts)  # type: ignore[arg-type]  # jit takes NumPy arrays

    def fill(self, config: NetworkConfig, row: int, examples: Sequence[Example]) -> list[list[int]]:
        """Lay examples into one row; returns the columns of their responses' last tokens."""
        cursor = prompt_cursor = segment = 0
        ends: list[list[int]] = []

        def put(tokens: Sequence[int], branch: int, *, response: bool) -> None:
            nonlocal cursor
            span = _span(cursor, tokens, self.ids.shape[1])
            self.ids[row, span], self.segment[row, span] = tokens, segment
            self.branch[row, span], self.response[row, span] = branch, response
            cursor = span.stop

        for example in examples:
            ends.append([])
            segment += config.packing != "whole"
            if config.packing == "joined":
                put(example.prompt, 0, response=False)
            elif config.packing == "apart":
                span = _span(prompt_cursor, example.prompt, self.prompt_ids.shape[1])
                self.prompt_ids[row, span], self.prompt_segment[row, span] = example.prompt, segment
                prompt_cursor = span.stop
            for branch, response in enumerate(example.responses, start=1):
                if config.packing == "whole":
                    segment += 1
                    put(example.prompt, 0, response=False)
                put(config.lead, branch, response=False)
                put(response, branch, response=True)
                ends[-1].append(cursor - 1)
        return ends


def _span(start: int, tokens: Sequence[int], width: int) -> slice:
    if start + len(tokens) > width:
        raise ValueError(f"{start + len(tokens)} tokens or more in a row of width {width}")
    return slice(start, start + len(tokens))
