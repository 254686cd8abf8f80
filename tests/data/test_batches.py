"""Batches depend on the data, the seed and the step only, and never cut a token off."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from podium.data import batches

PAD = 9
PROMPT = [{"role": "user", "content": "Why?"}]


@given(n=st.integers(1, 40), size=st.integers(1, 50), seed=st.integers(0, 2**32), epochs=st.integers(1, 3))
def test_each_epoch_holds_every_row_once(n, size, seed, epochs):
    steps = -(-n * epochs // size)
    stream = np.concatenate([batches.batch_indices(n, size, seed, step) for step in range(steps)])
    for epoch in range(epochs):
        assert sorted(stream[epoch * n : (epoch + 1) * n]) == list(range(n))


def test_epochs_and_seeds_have_orders_of_their_own():
    orders = [tuple(batches.permutation(50, seed, epoch)) for seed in (0, 1) for epoch in (0, 1)]
    assert len({*orders, tuple(range(50))}) == 5
    assert orders[0] == tuple(batches.permutation(50, 0, 0))


def test_the_order_is_pinned():
    """A change here changes every run that resumes: NumPy promises the bits of Philox for all versions."""
    assert batches.permutation(8, 7, 0).tolist() == [4, 1, 6, 3, 2, 7, 5, 0]
    assert batches.batch_indices(5, 4, 7, 2).tolist() == [4, 0, 4, 0]  # the end of one epoch and the start of the next


def test_steps_per_epoch_reach_every_row():
    assert [batches.steps_per_epoch(n, 4) for n in (1, 4, 5)] == [1, 1, 2]


def test_no_rows_is_an_error():
    with pytest.raises(ValueError, match="no rows to draw from: n is 0"):
        batches.batch_indices(0, 4, 0, 0)


def test_padding_is_outside_the_mask():
    left, right = batches.pad_left([[1, 2], [3]], 3, PAD), batches.pad_right([[1, 2], [3]], 3, PAD)
    assert left.ids.tolist() == [[9, 1, 2], [9, 9, 3]]
    assert left.mask.tolist() == [[False, True, True], [False, False, True]]
    assert right.ids.tolist() == [[1, 2, 9], [3, 9, 9]]
    assert right.mask.tolist() == [[True, True, False], [True, False, False]]
    assert (left.ids.dtype, left.mask.dtype) == (np.int32, np.bool_)


def test_nothing_is_ever_cut():
    for pad in (batches.pad_left, batches.pad_right):
        with pytest.raises(ValueError, match="row 1 has 3 tokens, more than 2"):
            pad([[1], [1, 2, 3]], 2, PAD)
