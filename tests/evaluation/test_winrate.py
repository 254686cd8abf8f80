"""Win rates by counting, the length regression against a general optimiser and a jackknife."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import optimize, stats

from podium.evaluation import winrate

REWARDS = arrays(np.float64, (5, 2), elements=st.integers(-2, 2).map(float))


@given(REWARDS, REWARDS)
def test_prompt_scores_by_counting(tuned: np.ndarray, baseline: np.ndarray) -> None:
    slow = [
        sum(1.0 if t > b else 0.5 if t == b else 0.0 for t in ours for b in theirs) / 4
        for ours, theirs in zip(tuned, baseline, strict=True)
    ]
    assert winrate.prompt_scores(tuned, baseline) == pytest.approx(slow)
    assert winrate.prompt_scores(tuned, baseline) + winrate.prompt_scores(baseline, tuned) == pytest.approx(1.0)
    # Win rates depend on the order of rewards alone, not on the scale that normalisation gave them.
    assert winrate.prompt_scores(3 * tuned - 7, 3 * baseline - 7) == pytest.approx(slow)


def test_win_rate_counts_prompts_not_answers() -> None:
    """Four prompts of eight answers are four units; 32 would give an interval less than half as wide."""
    found = winrate.win_rate(winrate.prompt_scores(np.ones((4, 8)), np.zeros((4, 8))), 0.95)
    expected = stats.binomtest(4, 4).proportion_ci(0.95, method="wilson")
    assert (found.value, found.units) == (1.0, 4)
    assert found.low == pytest.approx(expected.low)


def length_data(bias: float, quality: float, count: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    difference = rng.normal(15, 20, size=count)
    p = 1 / (1 + np.exp(-(quality + bias * np.tanh(difference / 20))))
    return (rng.random(count) < p).astype(float), difference


def test_length_control_removes_wins_that_length_alone_explains() -> None:
    scores, difference = length_data(bias=1.5, quality=0.0)
    assert winrate.win_rate(scores, 0.95).value > 0.6
    found = winrate.win_rate_at_equal_length(scores, difference, 0.95)
    assert found.low < 0.5 < found.high
    better, difference = length_data(bias=1.5, quality=1.0)
    found = winrate.win_rate_at_equal_length(better, difference, 0.95)
    assert found.low < 1 / (1 + np.exp(-1.0)) < found.high


def test_length_regression_equals_a_general_optimiser() -> None:
    scores, difference = length_data(bias=0.7, quality=0.4, count=60)
    scores[:7] = 0.5
    x = np.tanh(difference / difference.std())

    def loss(c: np.ndarray) -> float:
        z = c[0] + c[1] * x
        return float(np.logaddexp(0, z).sum() - (scores * z).sum() + (c**2).sum() / (2 * 2.5**2))

    fit = optimize.minimize(loss, np.zeros(2), tol=1e-12)
    found = winrate.win_rate_at_equal_length(scores, difference, 0.95)
    assert found.value == pytest.approx(1 / (1 + np.exp(-fit.x[0])), abs=1e-6)
    step = 1e-4
    hessian = np.zeros((2, 2))
    for i in range(2):
        for j in range(2):
            a, b = np.eye(2)[i] * step, np.eye(2)[j] * step
            center = fit.x
            hessian[i, j] = (loss(center + a + b) - loss(center + a) - loss(center + b) + loss(center)) / step**2
    half = 1.96 * np.linalg.inv(hessian)[0, 0] ** 0.5
    assert found.low == pytest.approx(1 / (1 + np.exp(half - fit.x[0])), abs=1e-3)


@pytest.mark.parametrize("score", [0.0, 1.0])
def test_length_control_stays_finite_when_every_prompt_agrees(score: float) -> None:
    found = winrate.win_rate_at_equal_length([score] * 50, list(range(-25, 25)), 0.95)
    assert 0.0 < found.low <= found.value <= found.high < 1.0
    assert abs(found.value - score) < 0.05


def test_equal_lengths_leave_the_raw_figures_and_one_fixed_difference_gives_none() -> None:
    assert winrate.win_rate_at_equal_length([1.0, 0.0, 1.0, 1.0] * 50, [0.0] * 200, 0.95).value == pytest.approx(
        0.75, abs=0.01
    )
    assert winrate.gain_at_equal_length([1.0, 2.0, 4.0, 5.0], [0.0] * 4, 0.95).value == pytest.approx(3.0)
    assert winrate.win_rate_at_equal_length([1.0, 0.0, 1.0], [5.0] * 3, 0.95).value is None
    assert winrate.gain_at_equal_length([1.0, 2.0, 4.0, 5.0], [5.0] * 4, 0.95).value is None


def test_gain_at_equal_length_equals_linregress_and_its_error_a_jackknife() -> None:
    rng = np.random.default_rng(8)
    difference = rng.normal(10, 12, size=80)
    gain = 0.3 + 0.05 * difference + rng.normal(size=80) * (0.2 + np.abs(difference) / 20)
    found = winrate.gain_at_equal_length(gain, difference, 0.95)
    assert found.value == pytest.approx(stats.linregress(difference, gain).intercept)
    left_out = [stats.linregress(np.delete(difference, i), np.delete(gain, i)).intercept for i in range(gain.size)]
    error = (79 / 80 * np.sum((np.array(left_out) - np.mean(left_out)) ** 2)) ** 0.5
    half = stats.t.ppf(0.975, 78) * error
    assert found.high - found.value == pytest.approx(half, rel=0.02)
