"""Repeated and contradicting rows are found, no prompt is in two splits, and length alone is a baseline."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podium.data import quality
from podium.data.collect import Located, instructed, with_unique_ids
from podium.data.records import PreferenceRecord, PromptRecord, normalised_prompt
from podium.errors import UserError

ASK = {"role": "user", "content": "Why?"}


def compared(prompt, responses, ranks, line=1, tokens=None, **fields):
    turns = [{"role": "user", "content": prompt}]
    record = PreferenceRecord(id="x", prompt=turns, responses=list(responses), ranks=ranks, **fields)
    return Located(record, "f", line, normalised_prompt(turns), 3, tuple(tokens or map(len, responses)))


def asked(prompt, line=1, name="x"):
    turns = [{"role": "user", "content": prompt}]
    return Located(PromptRecord(id=name, prompt=turns), "f", line, normalised_prompt(turns), 3, ())


def test_repeated_comparisons_are_dropped_whatever_their_order():
    rows = [
        compared("p", "ab", [1, 2], 1),
        compared("p", "ba", [2, 1], 2),
        compared("p", "ab", [2, 1], 3),
        compared("q", "ab", [1, 2], 4),
        compared("p", "ab", [1, 2], 5, rater="ann"),
    ]
    kept, repeated = quality.drop_duplicates(rows)
    assert [row.line for row in kept] == [1, 3, 4, 5]
    assert repeated == [quality.Clash("f", 2, "f", 1)]


def test_repeated_prompts_are_dropped():
    kept, repeated = quality.drop_duplicates([asked("a", 1), asked("b", 2), asked("a", 3)])
    assert [row.line for row in kept] == [1, 2]
    assert [(clash.line, clash.first_line) for clash in repeated] == [(3, 1)]


def test_a_pair_ranked_both_ways_is_a_contradiction_once():
    rows = [
        compared("p", "abc", [1, 2, 3], 1),
        compared("P", "ba", [1, 2], 2),
        compared("p", "ba", [1, 2], 3),
        compared("p", "ab", [1, 1], 4),
        compared("q", "ca", [1, 2], 5),
        compared("p", "ca", [1, 2], 6),
    ]
    assert quality.contradictions(rows) == [quality.Clash("f", 2, "f", 1), quality.Clash("f", 6, "f", 1)]


@given(prompts=st.lists(st.text(max_size=5), min_size=1, max_size=30), fraction=st.floats(0.01, 0.99))
def test_no_prompt_is_in_two_splits(prompts, fraction):
    rows = [asked(prompt, line) for line, prompt in enumerate(prompts)]
    if len({row.key for row in rows}) < 2:
        with pytest.raises(UserError, match=r"data\.prompts: 1 distinct prompt, .*data\.eval_prompts"):
            quality.split(rows, fraction, "data.prompts")
        return
    train, held_out = quality.split(rows, fraction, "data.prompts")
    assert not {row.key for row in train} & {row.key for row in held_out}
    assert train
    assert held_out
    assert sorted(row.line for row in [*train, *held_out]) == list(range(len(prompts)))


def test_the_split_of_a_prompt_does_not_depend_on_the_others():
    rows = [asked(f"question {number}", number) for number in range(400)]
    _, held_out = quality.split(rows, 0.2, "data.prompts")
    _, of_half = quality.split(rows[::2], 0.2, "data.prompts")
    assert {row.line for row in of_half} == {row.line for row in held_out if row.line % 2 == 0}
    assert 55 <= len(held_out) <= 105  # 80 expected, standard deviation 8
    _, more = quality.split(rows, 0.3, "data.prompts")
    assert {row.line for row in held_out} < {row.line for row in more}


def test_places_are_pinned():
    """A change here moves prompts of every data set between train and eval."""
    assert quality.place_of("user: why?") == pytest.approx(0.05230902130992643, abs=1e-12)


def test_shared_prompts_are_named_with_both_places():
    train, held_out = [asked("a", 1), asked("B", 2)], [asked(" b", 7), asked("c", 8)]
    assert quality.shared_prompts(train, held_out) == [quality.Clash("f", 2, "f", 7)]


def test_longer_wins_counts_equal_lengths_half():
    rows = [
        compared("p", ["aaa", "b"], [1, 2], tokens=(1, 2)),
        compared("p", ["aa", "bb"], [1, 2], tokens=(2, 1)),
        compared("p", ["a", "bb", "ccc"], [2, 1, 2], tokens=(1, 1, 1)),
        compared("p", ["a", "bb"], [1, 1], tokens=(1, 2)),
    ]
    found = quality.longer_wins(rows)
    # Pairs: 1 (longer won), 1 (equal), 2 of the third row (won against one character, lost against three).
    assert dataclasses.astuple(found) == (4, (1 + 0.5 + 1 + 0) / 4, (0 + 1 + 0.5 + 0.5) / 4)
    assert quality.longer_wins([]) == quality.LongerWins(0, 0.0, 0.0)


def test_ids_become_unique():
    rows, changed = with_unique_ids([asked("a", name="x"), asked("b", name="x#1"), asked("c", name="x"), asked("d")])
    assert [row.record.id for row in rows] == ["x", "x#1", "x#2", "x#3"]
    assert changed == 2


def test_an_instruction_is_a_system_message_before_what_is_there():
    system = {"role": "system", "content": "Be brief."}
    assert instructed([ASK], None) == [ASK]
    assert instructed([ASK], "Be kind.") == [{"role": "system", "content": "Be kind."}, ASK]
    assert instructed([system, ASK], "Be kind.") == [{"role": "system", "content": "Be kind.\n\nBe brief."}, ASK]
