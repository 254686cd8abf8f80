"""Best of n against its definition: the mean of the maximum over all choices; the KL bound against samples."""

import math
from itertools import combinations

import numpy as np
import pytest

from podium.evaluation import best_of, report
from support.evaluation_run import page


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_expected_best_is_the_mean_over_all_choices(n: int) -> None:
    rewards = np.random.default_rng(0).normal(size=(4, 5)).round(1)
    rewards[0, 1] = rewards[0, 2]
    slow = [np.mean([max(choice) for choice in combinations(row, n)]) for row in rewards]
    np.testing.assert_allclose(best_of.expected_best(rewards, n), slow, rtol=1e-12)


def test_two_of_two_is_the_maximum_and_more_than_there_are_is_refused() -> None:
    assert best_of.expected_best([[0.5, -1.0], [2.0, 2.0]], 2).tolist() == [0.5, 2.0]
    with pytest.raises(ValueError, match="best of 3 cannot be estimated from 2 answers"):
        best_of.expected_best([[0.0, 1.0]], 3)
    assert best_of.compare([[1.0]], [[2.0]], 0.95) is None


def test_the_kl_bound_is_the_divergence_of_distinct_answers() -> None:
    """Of many equally likely answers, ranked by reward, best-of-2 takes the one at place i with 2 i - 1 of m^2."""
    assert best_of.kl_bound(1) == 0.0 and best_of.kl_bound(2) == pytest.approx(0.193147, abs=1e-6)
    size = 2000
    for n in (2, 4):
        places = np.arange(size + 1) / size
        chosen = np.diff(places**n)
        divergence = float((chosen * np.log(chosen * size)).sum())
        assert divergence == pytest.approx(best_of.kl_bound(n), abs=2e-3) and divergence <= best_of.kl_bound(n)
    assert math.isclose(best_of.kl_bound(4), math.log(4) - 0.75)


def test_gain_and_lead_are_paired_by_prompt() -> None:
    found = best_of.compare([[0.0, 1.0], [2.0, 4.0]], [[1.0, 2.0], [3.0, 3.0]], 0.95)
    assert found is not None
    assert found["gain"]["value"] == pytest.approx((0.5 + 1.0) / 2) and found["gain"]["units"] == 2
    assert found["ppo_ahead"]["value"] == pytest.approx((0.5 - 1.0) / 2)
    assert found["reward"]["value"] == pytest.approx(2.5)


def test_a_gain_below_that_of_two_draws_is_amber_and_in_the_headline() -> None:
    summary = page(400, generations=2, gain=0.25).results["summary"]
    (reason,) = [one for one in summary["reasons"] if "keeping the better" in one["text"]]
    assert reason["level"] == "amber" and reason["text"].startswith("Drawing 2 untrained answers")
    assert "at no more than 0.193 nats, PPO +0." in reason["text"]
    assert summary["headline"].startswith("Better than before, not than best of 2, on 400 held-out prompts")
    assert summary["verdict"] == "amber"


def test_with_one_answer_the_section_says_what_to_set() -> None:
    made = page(12)
    assert made.results["best_of"] is None
    shown = report.html(made)
    assert "sample.num_generations: 2" in shown and "Best of 2 untrained" not in shown
    assert "Best of 2 untrained answers" in report.html(page(12, generations=2))
