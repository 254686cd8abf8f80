"""Every interval against an independent computation: scipy's own, or the definition worked out slowly."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from podium.evaluation import statistics

RNG = np.random.default_rng(5)


@pytest.mark.parametrize(("hits", "count"), [(0, 1), (0, 40), (40, 40), (7, 12), (611, 1000)])
@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_wilson_equals_scipy(hits: int, count: int, confidence: float) -> None:
    expected = stats.binomtest(hits, count).proportion_ci(confidence, method="wilson")
    found = statistics.wilson(hits, count, confidence)
    assert found.value == hits / count
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-12)


@given(st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=1, max_size=60), st.floats(0.5, 0.999))
def test_proportion_stays_in_range_around_its_value(scores: list[float], confidence: float) -> None:
    found = statistics.proportion(scores, confidence)
    assert 0.0 <= found.low <= found.value <= found.high <= 1.0
    assert found.value == pytest.approx(sum(scores) / len(scores))
    mirrored = statistics.proportion([1 - score for score in scores], confidence)
    assert mirrored.low == pytest.approx(1 - found.high, abs=1e-9)


def test_ties_counted_half_do_not_narrow_the_interval_below_its_coverage() -> None:
    """Simulated coverage: win 0.3, tie 0.4, loss 0.3, so the mean is 0.5."""
    draws = RNG.choice([1.0, 0.5, 0.0], p=[0.3, 0.4, 0.3], size=(2000, 80))
    covered = [found.low <= 0.5 <= found.high for found in (statistics.proportion(row, 0.95) for row in draws)]
    assert np.mean(covered) >= 0.95


def test_a_prompt_with_many_pairs_counts_as_its_design_effect_allows() -> None:
    """Ten copies of each outcome carry no more information than one: the interval must be that of the single ones."""
    scores = np.array([1.0, 0.0, 1.0, 1.0, 0.5, 1.0, 0.0])
    single = statistics.proportion(scores, 0.9)
    copies = statistics.proportion(np.repeat(scores, 10), 0.9, groups=np.repeat(np.arange(7), 10).tolist())
    assert (copies.low, copies.high) == pytest.approx((single.low, single.high), abs=1e-12)
    assert copies.units == 70
    naive = statistics.proportion(np.repeat(scores, 10), 0.9)
    assert naive.high - naive.low < 0.5 * (copies.high - copies.low)


def test_one_pair_per_group_is_the_plain_interval() -> None:
    scores = [1.0, 0.0, 0.5, 1.0]
    assert statistics.proportion(scores, 0.95, groups=list("abcd")) == statistics.proportion(scores, 0.95)


def test_mean_difference_equals_the_paired_t_test_of_scipy() -> None:
    before = RNG.normal(size=23)
    after = before + RNG.normal(0.3, 0.7, size=23)
    expected = stats.ttest_rel(after, before).confidence_interval(0.9)
    found = statistics.mean_difference(after, before, 0.9)
    assert found.value == pytest.approx(float((after - before).mean()))
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=1e-10)
    unpaired = stats.ttest_ind(after, before).confidence_interval(0.9)
    assert found.high - found.low < unpaired.high - unpaired.low


def test_t_interval_agrees_with_a_bootstrap() -> None:
    values = RNG.gamma(2.0, size=300)
    found = statistics.mean(values, 0.95)
    boot = stats.bootstrap((values,), np.mean, rng=np.random.default_rng(0), n_resamples=4000).confidence_interval
    width = found.high - found.low
    assert abs(found.low - boot.low) < 0.05 * width and abs(found.high - boot.high) < 0.05 * width


def test_ratio_equals_a_bootstrap_over_units() -> None:
    """A mean per token: answers, not tokens, are drawn anew."""
    tokens = RNG.integers(3, 60, size=400).astype(float)
    sums = tokens * RNG.normal(2.0, 0.5, size=400)
    found = statistics.ratio(sums, tokens, 0.95)
    rows = RNG.integers(0, 400, size=(4000, 400))
    low, high = np.quantile(sums[rows].sum(1) / tokens[rows].sum(1), [0.025, 0.975])
    assert found.value == pytest.approx(sums.sum() / tokens.sum())
    width = found.high - found.low
    assert abs(found.low - low) < 0.06 * width and abs(found.high - high) < 0.06 * width


@given(st.lists(st.tuples(st.integers(-4, 4), st.integers(-4, 4)), min_size=4, max_size=30))
def test_spearman_equals_scipy_with_ties(points: list[tuple[int, int]]) -> None:
    x, y = np.array(points).T
    found = statistics.spearman(x, y, 0.95)
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        assert found.value is None
        return
    assert found.value == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)
    if found.low is not None:
        assert -1.0 <= found.low <= found.value <= found.high <= 1.0


def test_spearman_interval_by_hand() -> None:
    x = np.arange(20.0)
    y = x + RNG.normal(0, 8, size=20)
    r = stats.spearmanr(x, y).statistic
    half = 1.959963984540054 * ((1 + r * r / 2) / 17) ** 0.5
    found = statistics.spearman(x, y, 0.95)
    assert found.low == pytest.approx(np.tanh(np.arctanh(r) - half))
    assert found.high == pytest.approx(np.tanh(np.arctanh(r) + half))


def test_sign_test_is_mcnemars_exact_test() -> None:
    """Model right where the rule is wrong 15 times, the reverse 4 times, 30 agreements that say nothing."""
    model = [1.0] * 15 + [0.0] * 4 + [1.0] * 30
    rule = [0.0] * 15 + [1.0] * 4 + [1.0] * 30
    tail = sum(stats.binom.pmf(k, 19, 0.5) for k in range(5))
    assert statistics.sign_test(model, rule) == pytest.approx(2 * tail)
    assert statistics.sign_test(rule, model) == pytest.approx(2 * tail)
    assert statistics.sign_test(model, model) == 1.0


def test_too_little_data_gives_no_interval_rather_than_a_wrong_one() -> None:
    assert statistics.mean([], 0.95) == (None, None, None, 0)
    assert statistics.mean([2.0], 0.95) == (2.0, None, None, 1)
    assert statistics.ratio([1.0], [2.0], 0.95) == (0.5, None, None, 1)
    assert statistics.ratio([1.0, 2.0], [0.0, 0.0], 0.95).value is None
    assert statistics.proportion([], 0.95).value is None


def test_numbers_that_are_not_finite_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="after: 1 of 2 numbers are NaN or infinite"):
        statistics.mean_difference([1.0, float("nan")], [0.0, 0.0], 0.95)
    with pytest.raises(ValueError, match="2 and 1"):
        statistics.mean_difference([1.0, 2.0], [0.0], 0.95)
