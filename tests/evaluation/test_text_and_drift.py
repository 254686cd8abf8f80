"""Repetition, KL and perplexity on small literal data."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from podium.evaluation import drift, text


def test_words_and_openings() -> None:
    assert text.words("I'll go, now.") == ["i", "'", "ll", "go", ",", "now", "."]
    assert text.plain_words("I'll go \u2013 l\u2019eau, now!") == ["i'll", "go", "l'eau", "now"]
    assert text.opening("\u201cI\u2019ll, er,\x1b[31m just\u202e send") == (("i'll", "er", "31m"), "I\u2019ll er 31m")
    assert text.opening("Yes.") == (("yes",), "Yes") and text.opening(" \n") == ((), "")
    # Without spaces between words a whole sentence would be one word.
    assert text.plain_words("\u5bf9\u4e0d\u8d77 ok") == ["\u5bf9", "\u4e0d", "\u8d77", "ok"]


def test_copied_is_the_share_of_word_groups_that_stand_in_the_source() -> None:
    assert text.copied("where is my order now", "Where is my order?") == pytest.approx(1 / 2)
    assert text.copied("my order", "Where is my order?") == 0.0


def test_repetition_of_a_loop_and_of_plain_text() -> None:
    assert text.repetition("no no no no no no") == pytest.approx(2 / 3)
    assert text.repetition("every word in this one is new") == 0.0
    assert text.repetition("short") == 0.0
    assert text.repetition("la, la, la, la", n=2) == pytest.approx(1 - 2 / 6)


@given(st.lists(st.text(max_size=40), max_size=6), st.integers(1, 4))
def test_rates_stay_in_range_for_any_text(texts: list[str], n: int) -> None:
    assert all(0.0 <= text.copied(item, other, n) <= 1.0 for item in texts for other in texts)
    assert all(0.0 <= text.repetition(item, n) < 1.0 for item in texts)
    assert all(text.repetition(item + " " + item, 1) >= text.repetition(item, 1) for item in texts if text.words(item))


def test_kl_is_the_mean_of_log_ratios_per_answer_and_their_sum_per_token() -> None:
    policy, reference = [[-3.0, -5.0], [-2.0, -8.0]], [[-4.0, -5.5], [-2.5, -7.0]]
    answer, token = drift.kl(policy, reference, [[4, 6], [5, 5]], 0.95)
    assert answer.value == pytest.approx((1.0 + 0.5 + 0.5 - 1.0) / 4)
    assert token.value == pytest.approx(1.0 / 20)
    assert answer.units == token.units == 2
    assert answer.low < answer.value < answer.high


def test_kl_of_categoricals_is_recovered_from_samples() -> None:
    rng = np.random.default_rng(2)
    p, q = np.array([0.7, 0.2, 0.1]), np.array([0.3, 0.3, 0.4])
    truth = float((p * np.log(p / q)).sum())
    draws = rng.choice(3, p=p, size=(4000, 1, 5))
    answer, token = drift.kl(np.log(p)[draws].sum(2), np.log(q)[draws].sum(2), np.full((4000, 1), 5), 0.99)
    assert answer.low < 5 * truth < answer.high
    assert token.low < truth < token.high


def test_perplexity_weighs_tokens_not_answers() -> None:
    """-6 over 3 tokens and -1 over 7: 0.7 nats per token; the mean of per-answer figures would be exp(1.07)."""
    found = drift.perplexity([[-6.0], [-1.0]], [[3], [7]], 0.95)
    assert found.value == pytest.approx(math.exp(0.7))
    assert found.low < found.value < found.high
    uniform = drift.perplexity(-np.log(50) * np.array([[3.0, 4.0]]), [[3, 4]], 0.95)
    assert uniform.value == pytest.approx(50.0)
