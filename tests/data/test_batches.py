"""Batches depend on the data, the seed and the step only, and never cut a token off."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from podium.data import batches
from podium.data.records import PreferenceRecord, PromptRecord
from podium.data.tokenizer import load_tokenizer
from support import chat_tokenizers as chat

PAD = 9
PROMPT = [{"role": "user", "content": "Why?"}]


def comparison(*sequences, ranks=None, margin=0.0, weight=1.0):
    return batches.Comparison(sequences, tuple(ranks or range(1, len(sequences) + 1)), margin, weight)


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
    with pytest.raises(ValueError, match="has 2 responses, more than 1"):
        batches.preference_batch([comparison((1,), (2,))], groups=1, candidates=1, length=4, pad_id=PAD)


def test_positions_of_a_scored_sequence_have_no_gap():
    ids, mask = batches.pad_sequences([[1, 2], [3]], [[4], [5, 6]], prompt_length=3, response_length=2, pad_id=PAD)
    assert ids.tolist() == [[9, 1, 2, 4, 9], [9, 9, 3, 5, 6]]
    assert [np.flatnonzero(row).tolist() for row in mask] == [[1, 2, 3], [2, 3, 4]]


def test_buckets():
    assert [batches.bucket_length(longest, (64, 16, 32)) for longest in (1, 16, 17, 64)] == [16, 16, 32, 64]
    with pytest.raises(ValueError, match=r"65 tokens fit none of the lengths \[64, 16\]"):
        batches.bucket_length(65, (64, 16))


def test_a_preference_batch_is_laid_out_by_group_and_candidate():
    rows = [comparison((1, 2), (3,), margin=0.5, weight=2.0), comparison((4,), (5,), (6, 7, 8), ranks=(2, 1, 2))]
    batch = batches.preference_batch(rows, groups=3, candidates=3, length=3, pad_id=PAD)
    assert batch.ids.tolist() == [
        [[1, 2, 9], [3, 9, 9], [9, 9, 9]],
        [[4, 9, 9], [5, 9, 9], [6, 7, 8]],
        [[9, 9, 9], [9, 9, 9], [9, 9, 9]],
    ]
    assert (batch.mask == (batch.ids != PAD)).all()
    assert batch.ranks.tolist() == [[1, 2, 0], [2, 1, 2], [0, 0, 0]]
    assert batch.candidates.tolist() == [[True, True, False], [True, True, True], [False, False, False]]
    assert batch.margin.tolist() == [0.5, 0.0, 0.0]
    assert batch.weight.tolist() == [2.0, 1.0, 0.0]


def test_a_resumed_run_sees_the_batches_it_would_have_seen():
    rows = [comparison((number,), (number, number)) for number in range(7)]
    settings = {"batch_size": 3, "candidates": 2, "buckets": (2, 4), "pad_id": PAD, "seed": 5}
    whole = list(batches.preference_batches(rows, first_step=0, last_step=9, **settings))
    resumed = list(batches.preference_batches(rows, first_step=4, last_step=9, **settings))
    assert len(whole) == 9
    for expected, found in zip(whole[4:], resumed, strict=True):
        for left, right in zip(expected, found, strict=True):
            np.testing.assert_array_equal(left, right)
    assert not np.array_equal(whole[0].ids, whole[1].ids)


def test_evaluation_sees_each_row_once_in_order():
    rows = [comparison((number,), (number,) * (number + 1)) for number in range(5)]
    found = list(batches.preference_passes(rows, batch_size=2, candidates=2, buckets=(3, 5), pad_id=PAD))
    assert [batch.ids.shape for batch in found] == [(2, 2, 3), (2, 2, 5), (2, 2, 5)]
    assert np.concatenate([batch.ids[:, 0, 0] for batch in found]).tolist() == [0, 1, 2, 3, 4, PAD]
    assert np.concatenate([batch.weight for batch in found]).tolist() == [1, 1, 1, 1, 1, 0]


def test_prompt_batches_say_which_rows_they_hold():
    prompts = [[1], [2, 3], [4, 5, 6]]
    (batch,) = batches.prompt_batches(prompts, batch_size=3, length=4, pad_id=PAD, seed=1, first_step=2, last_step=3)
    assert [[token for token in row if token != PAD] for row in batch.ids.tolist()] == [prompts[r] for r in batch.rows]
    assert sorted(batch.rows) == [0, 1, 2]
    assert batch.mask[:, -1].all()


def test_records_are_encoded_as_prompt_and_response(tmp_path):
    tokenizer = load_tokenizer(chat.write_chat_tokenizer(tmp_path))
    record = PreferenceRecord(id="x", prompt=PROMPT, responses=["So.", "No."], ranks=[2, 1], margin=0.25)
    (encoded,) = batches.encode_preferences([record], tokenizer)
    prompt = tokenizer.encode_prompt(PROMPT)
    assert encoded.sequences[1] == (*prompt, *tokenizer.encode_response("No."))
    assert dataclasses.astuple(encoded)[1:] == ((2, 1), 0.25, 1.0)
    assert batches.encode_prompts([PromptRecord(id="y", prompt=PROMPT)], tokenizer) == [prompt]
