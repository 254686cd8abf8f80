"""Canonical records keep what they are given, refuse what does not fit, and give each pair once."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podium.data.records import (
    DemonstrationRecord,
    PreferenceRecord,
    PromptRecord,
    normalised_prompt,
    pairs,
    read_demonstrations,
    read_jsonl,
    read_preferences,
    read_prompts,
    write_jsonl,
)
from podium.errors import UserError

PROMPT = [{"role": "user", "content": "Grüße \u2028 🙂"}]


def record(ranks, **fields):
    return PreferenceRecord(id="x", prompt=PROMPT, responses=list("abcdef"[: len(ranks)]), ranks=ranks, **fields)


def test_pairs_leave_ties_out():
    assert list(pairs(record([2, 1, 2, 3]))) == [(1, 0), (0, 3), (1, 2), (1, 3), (2, 3)]
    assert list(pairs(record([1, 1]))) == []


@given(ranks=st.lists(st.integers(1, 4), min_size=2, max_size=6))
def test_pairs_agree_with_the_ranks(ranks):
    found = list(pairs(record(ranks)))
    assert all(ranks[better] < ranks[worse] for better, worse in found)
    size = len(ranks)
    assert len(found) == sum(ranks[i] < ranks[j] for i in range(size) for j in range(size))
    assert len(set(found)) == len(found)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"ranks": [1]}, "2 responses but 1 ranks"),
        ({"ranks": [0, 1]}, "ranks start at 1"),
        ({"ranks": [1, 2], "shown_order": [0, 0]}, "does not name every response once"),
        ({"ranks": [1, 2], "surprise": 1}, "Extra inputs"),
    ],
)
def test_records_that_do_not_fit(fields, reason):
    with pytest.raises(ValueError, match=reason):
        PreferenceRecord(**({"id": "x", "prompt": PROMPT, "responses": ["a", "b"]} | fields))


def test_files_come_back(tmp_path):
    path = tmp_path / "a.jsonl"
    compared = [record([1, 2], margin=0.5, metadata={"k": [1, "ü"]}), record([1, 1, 2], shown_order=[2, 0, 1])]
    write_jsonl(path, compared)
    assert read_preferences(path) == read_jsonl(path) == compared
    assert "\\u" not in path.read_text("utf-8")
    asked = [PromptRecord(id="y", prompt=PROMPT, source="web")]
    write_jsonl(path, asked)
    assert read_prompts(path) == read_jsonl(path) == asked
    shown = [DemonstrationRecord(id="z", prompt=PROMPT, response="\u2028ü", weight=0.5)]
    write_jsonl(path, shown)
    assert read_demonstrations(path) == shown


def test_a_line_that_is_no_record_is_named(tmp_path):
    path = tmp_path / "a.jsonl"
    write_jsonl(path, [record([1, 2])])
    path.write_text(path.read_text("utf-8") + '{"id": "x"}\n', "utf-8")
    with pytest.raises(UserError, match=r"a\.jsonl:2: prompt: Field required; let `podium prepare` write this file"):
        read_preferences(path)
    with pytest.raises(UserError, match=r"b\.jsonl: no such file; `podium prepare` writes it"):
        read_prompts(tmp_path / "b.jsonl")


def test_the_same_question_is_the_same_prompt():
    def key(content, role="user"):
        return normalised_prompt([{"role": role, "content": content}])

    assert key("Why  is\n ｉｔ SO?") == key("why is it so?")
    assert len({key("why?"), key("why"), key("why?", "system")}) == 3
