"""Which demonstrations share a row: every one once an epoch, no row overfull, and the arrays say what counts.

Seen to fail: with a row's free places not taken; with one epoch's order for all; with weights by place in the data
instead of by segment.
"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from podium.data.records import DemonstrationRecord
from podium.errors import UserError
from podium.models.packing import Size
from podium.rlhf.demonstrations import (
    Demonstration,
    batches_of,
    encode,
    epoch_rows,
    find_step,
    sizes_of,
    to_arrays,
    width_of,
)
from support import tiny

SIZES = st.lists(st.builds(Size, st.integers(1, 30), st.integers(0, 20)), min_size=1, max_size=60)


@given(sizes=SIZES, slack=st.integers(0, 60), packing=st.booleans(), seed=st.integers(0, 99), epoch=st.integers(0, 9))
def test_every_demonstration_comes_once_and_no_row_is_overfull(sizes, slack, packing, seed, epoch) -> None:
    width = Size(30 + slack, 20 + slack // 2)
    rows = epoch_rows(sizes, width, packing=packing, seed=seed, epoch=epoch)
    assert sorted(index for row in rows for index in row) == list(range(len(sizes)))
    for row in rows:
        assert sum(sizes[index].row for index in row) <= width.row
        assert sum(sizes[index].prompt for index in row) <= width.prompt
    assert rows == epoch_rows(list(sizes), width, packing=packing, seed=seed, epoch=epoch)
    assert packing or {len(row) for row in rows} == {1}
    batches = batches_of(rows, 8)
    assert {len(batch) for batch in batches} == {8}
    assert [row for batch in batches for row in batch if row] == rows


@given(sizes=SIZES, seed=st.integers(0, 99))
def test_first_fit_leaves_no_two_rows_that_one_could_hold(sizes, seed) -> None:
    """What bounds the waste: the later of two such rows would never have been opened."""
    width = Size(30, 20)
    rows = epoch_rows(sizes, width, packing=True, seed=seed, epoch=0)
    used = np.array([np.sum([sizes[index] for index in row], axis=0) for row in rows])
    for first in range(len(rows)):
        for second in range(first):
            assert (used[first] + used[second] > np.array(width)).any()


def test_epochs_and_seeds_pack_anew() -> None:
    sizes = [Size(3 + number % 7, 0) for number in range(40)]
    plans = [epoch_rows(sizes, Size(30, 0), packing=True, seed=s, epoch=e) for s, e in ((0, 0), (0, 1), (1, 0))]
    together = [{frozenset(row) for row in plan} for plan in plans]
    assert together[0] != together[1] != together[2] != together[0]


def test_a_demonstration_that_fits_no_row_is_our_mistake() -> None:
    with pytest.raises(ValueError, match=r"of up to \[31, 0\] places, a row has \[30, 0\]"):
        epoch_rows([Size(31, 0)], Size(30, 0), packing=True, seed=0, epoch=0)


@pytest.mark.parametrize(
    ("sizes", "packing", "expected"),
    [
        ([Size(40, 0), Size(70, 0)], True, Size(100, 0)),
        ([Size(40, 0), Size(70, 0)], False, Size(96, 0)),
        ([Size(20, 30), Size(50, 5)], True, Size(60, 40)),
        ([Size(20, 30), Size(80, 5)], True, Size(80, 40)),  # one response alone is longer than what prompts leave
        ([Size(20, 30), Size(50, 5)], False, Size(64, 32)),
    ],
)
def test_one_width_holds_all(sizes, packing, expected) -> None:
    assert width_of(sizes, max_prompt_length=40, max_length=100, packing=packing) == expected


def test_steps_follow_one_another_through_epochs_of_any_length() -> None:
    lengths = [2, 3, 1, 2]
    found = [find_step(step, lambda epoch: lengths[epoch]) for step in range(8)]
    assert found == [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2), (2, 0), (3, 0), (3, 1)]


@pytest.mark.parametrize(
    ("kind", "ids", "targets", "weight"),
    [
        (
            "decoder",
            [5, 6, 7, 1, 8, 9, 1, 0, 0],
            [6, 7, 1, 8, 9, 1, 0, 0, 0],
            [0, 0.5, 0.5, 0, 2, 2, 0, 0, 0],
        ),
        # The prompts stand apart; id 0 leads each response.
        (
            "encoder-decoder",
            [0, 7, 1, 0, 9, 1, 0, 0, 0],
            [7, 1, 0, 9, 1, 0, 0, 0, 0],
            [0.5, 0.5, 0, 2, 2, 0, 0, 0, 0],
        ),
    ],
)
def test_each_place_is_told_the_next_token_and_whether_it_counts(kind, ids, targets, weight) -> None:
    config = tiny.CONFIGS[kind]
    found = [Demonstration([8], [9, 1], 2.0), Demonstration([5, 6], [7, 1], 0.5)]
    width = Size(9, 4 if config.packing == "apart" else 0)
    lessons = to_arrays(config, found, [(1, 0), ()], width, tiny.PAD)
    np.testing.assert_array_equal(lessons.packed.ids, [ids, [tiny.PAD] * 9])
    np.testing.assert_array_equal(lessons.targets, [targets, [tiny.PAD] * 8 + [0]])
    np.testing.assert_array_equal(lessons.weight, [weight, [0] * 9])
    assert lessons.weight.dtype == np.float32
    assert [size.row for size in sizes_of(config, found)] == ([3, 4] if kind == "decoder" else [3, 3])


class Letters:
    """A tokenizer of characters."""

    def encode_prompt(self, messages: list[dict[str, str]]) -> list[int]:
        return [ord(letter) for turn in messages for letter in turn["content"]]

    def encode_response(self, text: str) -> list[int]:
        return [*map(ord, text), tiny.EOS]


def test_records_are_encoded_with_their_weight_and_none_is_cut() -> None:
    ask = [{"role": "user", "content": "AB"}]
    record = DemonstrationRecord(id="d1", prompt=ask, response="C")
    (plain,), (weighed,) = (
        encode([one], Letters(), 4)  # type: ignore[arg-type]  # what encode uses of a tokenizer
        for one in (record, record.model_copy(update={"weight": 0.25}))
    )
    assert (plain, weighed.weight) == (Demonstration([65, 66], [67, tiny.EOS], 1.0), 0.25)
    with pytest.raises(UserError, match=r"demonstration d1: 4 tokens of prompt and response, data\.max_length is 3;"):
        encode([record], Letters(), 3)  # type: ignore[arg-type]  # as above
