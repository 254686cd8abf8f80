"""The whole comparison on four literal prompts, and what its flat form holds."""

import json
import math

import numpy as np
import pytest

from podium.evaluation import comparison
from podium.evaluation.comparison import Answers, Drift, compare, flatten

BEFORE = Answers(
    texts=[["a b c", "a b"], ["no no no no no no", "x y z"], ["one two", "three"], ["same", "same"]],
    rewards=np.array([[0.0, 1.0], [2.0, 0.0], [-1.0, 0.5], [1.0, 1.0]]),
    tokens=np.array([[4, 3], [7, 4], [3, 2], [2, 2]], float),
    finished=np.array([[1, 1], [0, 1], [1, 1], [1, 1]], float),
    reference_logprobs=-np.array([[4, 3], [7, 8], [6, 2], [2, 2]], float),
)
AFTER = Answers(
    texts=[["d e f g", "d"], ["p q", "r"], ["s t u", "v"], ["same", "same"]],
    rewards=np.array([[2.0, 0.5], [1.0, 1.0], [1.0, 3.0], [1.0, 1.0]]),
    tokens=np.array([[5, 2], [3, 2], [4, 2], [2, 2]], float),
    finished=np.ones((4, 2)),
    reference_logprobs=-np.array([[5, 4], [6, 2], [8, 3], [2, 2]], float),
)
ASKED = ["which letters", "a b c d", "which numbers", "the same again"]
MOVED = Drift(AFTER.reference_logprobs + np.array([[1, 0.5], [0.5, 0], [1, 1], [0, 0]]), AFTER.reference_logprobs)


@pytest.fixture(scope="module")
def found() -> dict:
    return compare(ASKED, BEFORE, AFTER, MOVED, 0.95)


def test_rewards_are_averaged_within_prompts_before_intervals(found: dict) -> None:
    gain = found["reward"]["gain"]
    assert gain["value"] == pytest.approx(np.mean([0.75, 0.0, 2.25, 0.0]))
    assert gain["units"] == 4, "prompts are the units, not answers"
    assert found["reward"]["baseline"]["value"] == pytest.approx(4.5 / 8)
    assert found["reward"]["tuned"]["value"] == pytest.approx(10.5 / 8)


def test_win_rate_compares_all_answers_of_a_prompt(found: dict) -> None:
    """Prompt 0: 2>0, 2>1, .5>0, .5<1: 3/4. Prompt 1: 1<2, 1>0 twice: 1/2. Prompt 2: 1. Prompt 3: ties."""
    wins = found["win_rate"]
    assert wins["value"] == pytest.approx((0.75 + 0.5 + 1.0 + 0.5) / 4)
    assert (wins["wins"], wins["ties"], wins["losses"]) == (2, 2, 0)


def test_drift_length_and_text(found: dict) -> None:
    assert found["kl"]["answer"]["value"] == pytest.approx(4.0 / 8)
    assert found["kl"]["token"]["value"] == pytest.approx(4.0 / 22)
    assert found["length"]["ratio"] == pytest.approx(22 / 27)
    assert found["length"]["change"]["value"] == pytest.approx((22 - 27) / 8)
    assert found["perplexity"]["baseline"]["value"] == pytest.approx(math.exp(34 / 27))
    assert found["perplexity"]["tuned"]["value"] == pytest.approx(math.exp(32 / 22))
    assert found["finish_rate"]["baseline"]["value"] == pytest.approx(7 / 8)
    assert found["collapse"]["repetition"]["baseline"]["value"] == pytest.approx((2 / 3) / 2 / 4)


def test_shorter_answers_almost_everywhere_are_called_extrapolated() -> None:
    rng = np.random.default_rng(0)
    shorter = Answers(**{**vars(AFTER), "tokens": BEFORE.tokens - rng.integers(1, 2, size=(4, 2))})
    assert compare(ASKED, BEFORE, shorter, MOVED, 0.95)["equal_length"]["extrapolated"]
    assert not compare(ASKED, BEFORE, AFTER, MOVED, 0.95)["equal_length"]["extrapolated"]


def test_a_policy_compared_with_itself_has_not_moved() -> None:
    still = Drift(BEFORE.reference_logprobs, BEFORE.reference_logprobs)
    found = compare(ASKED, BEFORE, BEFORE, still, 0.95)
    assert found["win_rate"]["value"] == 0.5
    for estimate in (found["reward"]["gain"], found["kl"]["answer"], found["length"]["change"]):
        assert (estimate["value"], estimate["low"], estimate["high"]) == (0.0, 0.0, 0.0)
    assert found["length"]["ratio"] == 1.0


def test_flat_metrics_are_finite_numbers_equal_to_the_results(found: dict) -> None:
    flat = flatten(found)
    assert all(isinstance(value, float) and math.isfinite(value) for value in flat.values())
    assert flat["reward_gain"] == found["reward"]["gain"]["value"]
    assert flat["win_rate_high"] == found["win_rate"]["high"]
    assert flat["kl_per_token"] == found["kl"]["token"]["value"]
    assert flat["distinct_2_baseline"] == found["collapse"]["distinct"]["baseline"]["value"]
    assert set(flat) == {
        "num_prompts", "reward_gain", "reward_gain_low", "reward_gain_high", "win_rate", "win_rate_low",
        "win_rate_high", "win_rate_equal_length", "reward_gain_equal_length", "kl", "kl_low", "kl_high",
        "kl_per_token", "length_ratio", "reward_baseline", "reward_tuned", "distinct_2_baseline", "distinct_2_tuned",
        "common_opening_baseline", "common_opening_tuned", "duplicates_baseline", "duplicates_tuned",
        "prompt_copies_baseline", "prompt_copies_tuned", "best_of_2_gain", "best_of_2_gain_low", "best_of_2_gain_high",
        "best_of_2_kl",
        "length_baseline", "length_tuned", "finish_rate_baseline", "finish_rate_tuned", "perplexity_baseline",
        "perplexity_tuned", "repetition_baseline", "repetition_tuned",
    }  # fmt: skip


def test_one_prompt_has_values_without_intervals_and_stays_json() -> None:
    one = {name: (value[:1]) for name, value in vars(AFTER).items()}
    before = {name: (value[:1]) for name, value in vars(BEFORE).items()}
    moved = Drift(MOVED.policy_logprobs[:1], MOVED.reference_logprobs[:1])
    found = comparison.compare(ASKED[:1], Answers(**before), Answers(**one), moved, 0.95)
    assert found["reward"]["gain"]["low"] is None and found["reward"]["gain"]["value"] == pytest.approx(0.75)
    assert json.loads(json.dumps(found, allow_nan=False))["prompts"] == 1
    assert "reward_gain_low" not in flatten(found)
