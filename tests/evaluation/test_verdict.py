"""Which figures make a verdict red, amber or green, gate by gate."""

import copy
from typing import Any

import pytest

from podium.evaluation import table, verdict, wording
from support.evaluation_run import page

GOOD = page(generations=2).results


def changed(*path_and_value: Any) -> dict[str, Any]:
    *path, last, value = path_and_value
    results = copy.deepcopy(dict(GOOD))
    place = results
    for key in path:
        place = place[key]
    place[last] = value
    return results


def estimate(value: float, low: float, high: float) -> dict[str, float]:
    return {"value": value, "low": low, "high": high, "units": 100}


def cut(accuracy: float) -> dict[str, Any]:
    return {"max_new_tokens": 24, "share": 0.9, "accuracy": estimate(accuracy, accuracy - 0.1, accuracy + 0.1)}


def judge(results: dict[str, Any], **gates: float | None) -> dict[str, Any]:
    return verdict.summarise(results, verdict.check_gates(results, gates))


def levels(summary: dict[str, Any], words: str) -> list[str]:
    return [reason["level"] for reason in summary["reasons"] if words in reason["text"]]


def test_a_clear_gain_is_green_and_its_headline_carries_the_figures() -> None:
    summary = judge(GOOD)
    assert summary["verdict"] == "green"
    gain = wording.estimate(GOOD["reward"]["gain"], wording.signed)
    assert summary["headline"].startswith(f"Better on 120 held-out prompts: reward {gain} (best of 2: +0.5")
    assert wording.estimate(GOOD["win_rate"], wording.percent) in summary["headline"]


@pytest.mark.parametrize(
    ("value", "passed", "sure", "level"),
    [(0.5, True, True, "green"), (0.75, True, False, "amber"), (0.8, False, False, "red"), (0.9, False, True, "red")],
)
def test_the_value_decides_a_least_gate_and_the_interval_says_how_surely(
    value: float, passed: bool, sure: bool, level: str
) -> None:
    results = changed("win_rate", GOOD["win_rate"] | estimate(0.775, 0.7, 0.84))
    (gate,) = verdict.check_gates(results, {"min_win_rate": value})
    assert (gate["passed"], gate["sure"], gate["threshold"]) == (passed, sure, value)
    assert levels(judge(results, min_win_rate=value), "win rate 77.5 % [70.0, 84.0], at least") == [level]


def test_a_most_gate_reads_the_other_way_and_an_exact_hit_passes() -> None:
    results = changed("kl", "answer", estimate(3.0, 2.5, 3.5))
    assert verdict.check_gates(results, {"max_kl": 3.0})[0]["passed"]
    assert verdict.check_gates(results, {"max_kl": 4.0})[0]["passed"]
    assert not verdict.check_gates(results, {"max_kl": 2.9})[0]["passed"]
    assert judge(results, max_kl=2.0)["verdict"] == "red"


def test_every_gate_reads_its_own_figure() -> None:
    names = ("min_win_rate", "min_reward_gain", "max_kl", "min_reward_accuracy", "max_length_ratio")
    values = {gate["name"]: gate["value"] for gate in verdict.check_gates(GOOD, dict.fromkeys(names, 0.1))}
    assert values == {
        "min_win_rate": GOOD["win_rate"]["value"],
        "min_reward_gain": GOOD["reward"]["gain"]["value"],
        "max_kl": GOOD["kl"]["answer"]["value"],
        "min_reward_accuracy": GOOD["reward_model"]["accuracy"]["value"],
        "max_length_ratio": GOOD["length"]["ratio"],
    }


def test_gates_left_out_are_not_checked_and_an_unmeasured_figure_fails() -> None:
    assert verdict.check_gates(GOOD, {"max_kl": None}) == []
    results = changed("reward_model", None)
    (gate,) = verdict.check_gates(results, {"min_reward_accuracy": 0.6})
    assert not gate["passed"]
    assert levels(judge(results, min_reward_accuracy=0.6), "was not measured") == ["red"]


def test_a_fall_is_red_and_an_interval_over_zero_is_amber() -> None:
    worse = judge(changed("reward", "gain", estimate(-0.5, -0.8, -0.2)))
    assert worse["verdict"] == "red" and worse["headline"].startswith("Worse on")
    unclear = judge(changed("reward", "gain", estimate(0.1, -0.1, 0.3)))
    assert unclear["verdict"] == "amber" and unclear["headline"].startswith("No clear change on")
    assert levels(judge(changed("win_rate", GOOD["win_rate"] | estimate(0.52, 0.45, 0.6))), "may be even") == ["amber"]


@pytest.mark.parametrize(
    ("results", "words"),
    [
        (changed("length", "ratio", 2.3), "2.30 times as long"),
        (changed("length", "ratio", 0.4), "0.400 times as long"),
        (changed("equal_length", "gain", estimate(0.1, -0.1, 0.3)), "At equal length the gain is no longer clear"),
        (changed("equal_length", "extrapolated", True), "extrapolated"),
        (changed("finish_rate", "tuned", estimate(0.7, 0.6, 0.8)), "Fewer answers end by themselves"),
        (changed("reward_model", "cut", cut(0.7)), "answers cut after 24 tokens it orders 70.0 % of the pairs right"),
        (changed("perplexity", "tuned", estimate(30.0, 20.0, 40.0)), "look odd to the reference model"),
        (changed("kl", "answer", estimate(40.0, 35.0, 45.0)), "moved far"),
        (changed("prompts", 12), "Only 12 prompts"),
        (changed("reward_model", None), "came without a held-out report"),
        (
            changed("reward_model", "accuracy_above_length_rule", estimate(0.02, -0.04, 0.08)),
            "is not clearly better than the rule",
        ),
    ],
)
def test_each_warning_alone_turns_green_into_amber(results: dict[str, Any], words: str) -> None:
    assert levels(judge(GOOD), words) == []
    summary = judge(results)
    assert levels(summary, words) == ["amber"]
    assert summary["verdict"] == "amber"


def test_reasons_stand_worst_first() -> None:
    results = changed("prompts", 12)
    order = [reason["level"] for reason in judge(results, max_kl=0.1)["reasons"]]
    assert order == sorted(order, key=["red", "amber", "green"].index)
    assert {"red", "amber", "green"} == set(order)


def test_table_says_what_the_results_hold() -> None:
    rows = {row["label"]: row for row in table.rows(GOOD)}
    assert rows["Mean reward"]["tuned"] == wording.estimate(GOOD["reward"]["tuned"])
    assert rows["Mean reward"]["change"] == wording.estimate(GOOD["reward"]["gain"], wording.signed)
    assert rows["Win rate"]["change"] == "{wins} won, {ties} tied, {losses} lost".format(**GOOD["win_rate"])
    assert rows["Reward of the best of 2 answers"]["baseline"] == wording.estimate(GOOD["best_of"]["reward"])
    before, after = (GOOD["perplexity"][side]["value"] for side in ("baseline", "tuned"))
    assert rows["Perplexity"]["change"] == wording.signed(after - before)
    assert (
        "extrapolated"
        in {r["label"]: r for r in table.rows(changed("equal_length", "extrapolated", True))}[
            "Win rate at equal length"
        ]["tuned"]
    )


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, "–"), (0, "0"), (0.01234, "0.0123"), (4.567, "4.57"), (128.4, "128"), (-0.5, "\u22120.500"),
     (-0.00001, "0"), (2.5e7, "2.50e+07"), (12.34, "12.3")],
)  # fmt: skip
def test_numbers_are_short(value: float | None, shown: str) -> None:
    assert wording.number(value) == shown


def test_signs_shares_and_intervals() -> None:
    assert (wording.signed(1.5), wording.signed(-1.5), wording.signed(0.00001)) == ("+1.50", "\u22121.50", "0")
    assert wording.estimate(estimate(0.775, 0.692, 0.841), wording.percent) == "77.5 % [69.2, 84.1]"
    assert wording.estimate(estimate(0.0561, -0.2449, 0.357)) == "0.056 [\u22120.245, 0.357]"
    assert wording.estimate({"value": 2.0, "low": None, "high": None}) == "2.00"
    assert wording.estimate({"value": None, "low": None, "high": None}) == "–"
