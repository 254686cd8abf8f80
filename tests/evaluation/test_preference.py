"""The held-out report of a reward model, on literal pairs and on data of known calibration."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit
from scipy.stats import spearmanr

from podium.evaluation import preference

CHOSEN = [1.0, 0.2, -0.3, 2.0, 0.5, 0.0]
REJECTED = [0.0, 0.9, -1.3, 2.0, 0.1, -3.0]
LONG_CHOSEN, LONG_REJECTED = [5, 9, 4, 6, 3, 7], [8, 2, 4, 7, 9, 1]


def sample() -> dict:
    return preference.report(CHOSEN, REJECTED, LONG_CHOSEN, LONG_REJECTED, 0.95)


def test_accuracy_counts_a_tie_half_and_stands_beside_longer_wins() -> None:
    found = sample()
    assert found["accuracy"]["value"] == pytest.approx(4.5 / 6)
    assert found["longer_wins"]["tokens"]["value"] == pytest.approx(2.5 / 6)
    assert found["best_length_rule"] == {"rule": "shorter", "value": pytest.approx(3.5 / 6)}
    assert found["accuracy_above_length_rule"]["value"] == pytest.approx(1 / 6)
    assert found["pairs"] == found["accuracy"]["units"] == 6


def test_loss_brier_and_correlation_by_definition() -> None:
    found = sample()
    margin = [c - r for c, r in zip(CHOSEN, REJECTED, strict=True)]
    assert found["loss"] == pytest.approx(sum(math.log(1 + math.exp(-m)) for m in margin) / 6)
    assert found["brier"] == pytest.approx(sum((1 - 1 / (1 + math.exp(-m))) ** 2 for m in margin) / 6)
    expected = spearmanr(CHOSEN + REJECTED, LONG_CHOSEN + LONG_REJECTED).statistic
    assert found["length_correlation"]["value"] == pytest.approx(expected)


def test_p_value_of_longer_wins_compares_on_the_same_pairs() -> None:
    """20 pairs, the model right on all, longer-wins right on 10: ten disagreements, all one way."""
    found = preference.report([1.0] * 20, [0.0] * 20, [2] * 10 + [1] * 10, [1] * 10 + [2] * 10, 0.95)
    assert found["longer_wins"]["tokens"]["p_value"] == pytest.approx(2 * 0.5**10)
    assert found["accuracy_above_length_rule"]["low"] > 0


def test_characters_are_a_baseline_of_their_own() -> None:
    found = preference.report(
        CHOSEN, REJECTED, LONG_CHOSEN, LONG_REJECTED, 0.95,
        chosen_characters=[1] * 6, rejected_characters=[2] * 6,
    )  # fmt: skip
    assert found["longer_wins"]["characters"]["value"] == 0.0
    assert found["longer_wins"]["tokens"]["value"] == pytest.approx(2.5 / 6)


def test_pairs_of_one_prompt_widen_the_intervals() -> None:
    wide = preference.report(
        CHOSEN * 9, REJECTED * 9, LONG_CHOSEN * 9, LONG_REJECTED * 9, 0.95, groups=list(range(6)) * 9
    )
    narrow = preference.report(CHOSEN * 9, REJECTED * 9, LONG_CHOSEN * 9, LONG_REJECTED * 9, 0.95)
    for key in ("accuracy", "accuracy_above_length_rule"):
        assert wide[key]["value"] == pytest.approx(narrow[key]["value"])
        assert wide[key]["high"] - wide[key]["low"] > 1.5 * (narrow[key]["high"] - narrow[key]["low"])


def test_scores_that_follow_bradley_terry_are_calibrated_and_louder_ones_are_not() -> None:
    rng = np.random.default_rng(1)
    gap = rng.normal(0, 1.5, size=20_000)
    margin = np.where(rng.random(gap.size) < expit(gap), gap, -gap)
    assert preference.calibration(margin, 0.95)["error"] < 0.02
    assert preference.calibration(4 * margin, 0.95)["error"] > 0.1


@given(st.lists(st.floats(-40, 40), min_size=1, max_size=50))
def test_calibration_error_equals_the_slow_definition(margin: list[float]) -> None:
    bins: dict[int, list[tuple[float, float]]] = {}
    for value in margin:
        sure = 1 / (1 + math.exp(-abs(value)))
        right = 1.0 if value > 0 else 0.5 if value == 0 else 0.0
        edges = np.linspace(0.5, 1.0, 11)
        place = max(i for i in range(10) if sure >= edges[i])
        bins.setdefault(place, []).append((sure, right))
    expected = sum(abs(sum(s for s, _ in rows) - sum(r for _, r in rows)) / len(margin) for rows in bins.values())
    found = preference.calibration(margin, 0.95)
    assert found["error"] == pytest.approx(expected, abs=1e-9)
    assert sum(row["count"] for row in found["bins"]) == len(margin)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50))
def test_histogram_holds_every_margin_and_splits_at_zero(margin: list[float]) -> None:
    found = preference.histogram(margin)
    assert sum(found["counts"]) == len(margin)
    assert found["edges"][len(found["edges"]) // 2] == 0.0
    negative = sum(found["counts"][: len(found["counts"]) // 2])
    assert negative == sum(value < 0 for value in margin)


def test_report_is_plain_json_even_for_one_pair_without_signal() -> None:
    found = preference.report([0.0], [0.0], [3], [3], 0.95)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["length_correlation"]["value"] is None


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match="no pair"):
        preference.report([], [], [], [], 0.95)
    with pytest.raises(ValueError, match="2 chosen scores for 1 rejected scores"):
        preference.report([1.0, 2.0], [1.0], [1, 1], [1, 1], 0.95)
    with pytest.raises(ValueError, match="rejected scores: 1 of 1"):
        preference.report([1.0], [float("inf")], [1], [1], 0.95)
