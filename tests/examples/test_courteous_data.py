"""Hold the demonstration's preference data to what its README promises."""

import itertools
import json
import re
from collections import Counter
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "examples" / "courteous"
FIELDS = {"pairs.jsonl": {"prompt", "chosen", "rejected"}, "prompts.jsonl": {"prompt"}}
ROWS = {"pairs.jsonl": 320, "prompts.jsonl": 220}


def read(name: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in (FOLDER / name).read_text(encoding="utf-8").splitlines()]


def count(text: str) -> int:
    return len(text.split())


def words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9']+", text.lower())


def jaccard(a: set[str], b: set[str]) -> float:
    return len(a & b) / len(a | b)


@pytest.fixture(scope="module")
def pairs() -> list[dict[str, str]]:
    return read("pairs.jsonl")


@pytest.fixture(scope="module")
def prompts(pairs: list[dict[str, str]]) -> list[str]:
    """Give the customer messages of both files."""
    return [row["prompt"] for row in pairs + read("prompts.jsonl")]


@pytest.mark.parametrize("name", FIELDS)
def test_every_row_has_the_fields_and_plain_trimmed_text(name: str) -> None:
    rows = read(name)
    assert len(rows) == ROWS[name]
    for number, row in enumerate(rows, start=1):
        assert set(row) == FIELDS[name], f"{name}:{number}"
        for field, text in row.items():
            assert text and text == " ".join(text.split()), f"{name}:{number} {field}"
            assert text.isascii() and text.isprintable(), f"{name}:{number} {field}"


def test_texts_keep_to_their_word_limits(pairs: list[dict[str, str]], prompts: list[str]) -> None:
    assert [text for text in prompts if not 8 <= count(text) <= 45] == []
    assert [row["chosen"] for row in pairs if not 15 <= count(row["chosen"]) <= 45] == []
    assert [row["rejected"] for row in pairs if count(row["rejected"]) > 110] == []


def test_about_a_third_of_the_rejected_answers_ramble(pairs: list[dict[str, str]]) -> None:
    lengths = [count(row["rejected"]) for row in pairs]
    assert sum(length >= 60 for length in lengths) == 100
    assert [length for length in lengths if 45 < length < 60] == []


def test_no_prompt_is_asked_twice(prompts: list[str]) -> None:
    repeated = [text for text, n in Counter(" ".join(words(prompt)) for prompt in prompts).items() if n > 1]
    assert repeated == []


@pytest.mark.parametrize("field", ["prompt", "chosen", "rejected"])
def test_no_text_is_nearly_another(field: str, pairs: list[dict[str, str]], prompts: list[str]) -> None:
    texts = prompts if field == "prompt" else [row[field] for row in pairs]
    bags = [(text, set(words(text))) for text in texts]
    near = [(a, b) for (a, left), (b, right) in itertools.combinations(bags, 2) if jaccard(left, right) >= 0.5]
    assert near == []


def test_the_longer_answer_wins_in_about_half_of_the_pairs(pairs: list[dict[str, str]]) -> None:
    by_words = sum(count(row["chosen"]) > count(row["rejected"]) for row in pairs) / len(pairs)
    by_characters = sum(len(row["chosen"]) > len(row["rejected"]) for row in pairs) / len(pairs)
    assert 0.35 <= by_words <= 0.55
    assert 0.35 <= by_characters <= 0.55


def test_no_single_word_tells_good_answers_from_bad(pairs: list[dict[str, str]]) -> None:
    """Preferring the answer with (or without) one given word must be right in fewer than 70 % of the pairs."""
    lead: Counter[str] = Counter()
    for row in pairs:
        chosen, rejected = (set(re.findall(r"[\w']+|[^\w\s]", row[field].lower())) for field in ("chosen", "rejected"))
        lead.update(chosen - rejected)
        lead.subtract(rejected - chosen)
    accuracy = {word: 0.5 + abs(n) / (2 * len(pairs)) for word, n in lead.items()}
    assert {word: share for word, share in accuracy.items() if share >= 0.7} == {}


def test_answers_that_break_off_are_all_rejected(pairs: list[dict[str, str]]) -> None:
    assert [row["chosen"] for row in pairs if row["chosen"][-1].isalnum()] == []
    assert 60 <= sum(row["rejected"][-1].isalnum() for row in pairs) <= 80


def test_a_promise_is_no_mark_of_a_good_answer(pairs: list[dict[str, str]]) -> None:
    """A policy finds such a mark within twenty steps: with 50 against 1, 79 % of its answers came to say "I'll"."""
    chosen, rejected = (sum("I'll" in row[field] for row in pairs) for field in ("chosen", "rejected"))
    assert chosen <= 1.5 * rejected


def test_an_offer_to_help_is_no_mark_of_a_good_answer(pairs: list[dict[str, str]]) -> None:
    """It fits any message, so a policy comes to say nothing else: 66 of 98 answers did, with 14 against 10."""
    chosen, rejected = (
        sum(bool(re.search(r"\b(happy|glad|delighted) to\b", row[field])) for row in pairs)
        for field in ("chosen", "rejected")
    )
    assert rejected >= 3 * chosen
