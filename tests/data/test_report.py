"""The figures of the report, and the sentences that it makes of them."""

import pytest

from podium.data import quality, report
from podium.data.collect import Collected, FileCount, Located
from podium.data.records import DemonstrationRecord, PreferenceRecord, PromptRecord
from podium.data.sources import Refusal

ASK = [{"role": "user", "content": "Why?"}]


def compared(ranks, tokens, prompt_tokens=5):
    responses = [letter * count for letter, count in zip("abcd", (9, 7, 3, 1), strict=False)][: len(ranks)]
    record = PreferenceRecord(id="x", prompt=ASK, responses=responses, ranks=ranks)
    return Located(record, "f", 1, f"key {ranks}", prompt_tokens, tuple(tokens))


def part(train, held_out, rows, refused=()):
    counts = [FileCount("f", "0" * 64, rows, len(refused))]
    return report.Part(Collected([*train, *held_out], list(refused), counts), train, held_out, [], [], 0)


def findings(train, held_out, refused=(), contradictions=(), demonstrations=report.EMPTY, taught=()):
    asked = [Located(PromptRecord(id="y", prompt=ASK), "g", 1, "key", 7, ())]
    return report.Findings(
        preferences=part(train, held_out, 16, refused),
        prompts=part(asked, asked, 4),
        demonstrations=demonstrations,
        tied=0,
        contradictions=contradictions,
        held_out_in_prompts=[],
        held_out_in_demonstrations=taught,
        longer_wins={"train": quality.longer_wins(train), "eval": quality.longer_wins(held_out)},
        settings={},
        notes=[],
    )


TRAIN = [compared([1, 2], (3, 4)), compared([2, 1, 3], (10, 20, 40)), compared([1, 1, 2], (6, 7, 8))]
EVAL = [compared([2, 1], (1, 2))]


def test_pairs_candidates_and_lengths():
    summary = report.summarise(findings(TRAIN, EVAL))
    preferences = summary["preferences"]
    assert (preferences["pairs_train"], preferences["pairs_eval"]) == (1 + 3 + 2, 1)
    assert preferences["candidates"] == {"2": 2, "3": 2}
    best, other = summary["tokens"]["best_responses"], summary["tokens"]["other_responses"]
    assert (best["count"], best["min"], best["max"]) == (5, 2, 20)  # 3, 20, 6, 7, 2
    assert (other["count"], other["min"], other["max"]) == (5, 1, 40)  # 4, 10, 40, 8, 1
    assert summary["tokens"]["prompts"]["mean"] == 7


def test_metrics_are_flat_and_each_has_its_own_figure():
    refused = [Refusal("f", 3, "empty", "why"), Refusal("f", 4, "empty", "why")]
    metrics = report.metrics(report.summarise(findings(TRAIN, EVAL, refused)))
    assert metrics["refused_fraction"] == pytest.approx(2 / 20)
    assert (metrics["preferences_train"], metrics["pairs_train"]) == (3, 6)
    # By characters the first response is the longest; by tokens the last one is.
    assert metrics["longer_wins_characters_train"] == pytest.approx(5 / 6)
    assert metrics["longer_wins_tokens_train"] == pytest.approx(1 / 6)
    assert (metrics["longer_wins_characters_eval"], metrics["longer_wins_tokens_eval"]) == (0, 1)


def test_percentiles_and_histogram():
    rows = [compared([1, 2], (1, 1), prompt_tokens=count) for count in range(100)]
    statistics = report.summarise(findings(rows, EVAL))["tokens"]["preference_prompts"]
    assert [statistics[name] for name in ("count", "min", "median", "p95", "max")] == [101, 0, 49, 94, 99]
    counts = statistics["histogram"]["counts"]
    few = [compared([1, 2], (1, 1), prompt_tokens=count) for count in (1, 2, 10)]
    found = report.summarise(findings(few, EVAL))["tokens"]["preference_prompts"]
    assert (found["median"], found["p95"]) == (2, 10)  # of 1, 2, 5, 10: at least so many lie within
    assert statistics["histogram"]["width"] == 4
    assert (len(counts), sum(counts), counts[1], counts[-1]) == (25, 101, 5, 4)


def test_the_page_shows_records_from_all_over_the_set():
    rows = [compared([1, 2], (1, 1), prompt_tokens=1) for _ in range(40)]
    rows = [
        Located(row.record.model_copy(update={"id": f"row-{n}"}), "f", n, str(n), 1, (1, 1))
        for n, row in enumerate(rows)
    ]
    found = findings(rows, EVAL)
    page = report.render(report.summarise(found), found)
    assert [name for name in (f"row-{n}" for n in range(40)) if f"<code>{name}</code>" in page] == [
        "row-0",
        "row-10",
        "row-20",
        "row-30",
    ]


def test_bars_are_as_tall_as_their_counts():
    statistics = {"histogram": {"width": 4, "counts": [200, 0, 1, 100]}, "median": 6, "p95": 14}
    drawn = report.chart("Prompts", statistics, width=80, height=50)
    assert [(bar["x"], bar["y"], bar["height"]) for bar in drawn["bars"]] == [
        (0, 0, 50),
        (20, 50, 0),
        (40, 49, 1),  # a single row stays visible
        (60, 25, 25),
    ]
    assert drawn["bars"][2]["label"] == "8 to 11 tokens: 1"
    assert [mark["x"] for mark in drawn["marks"]] == [32.5, 72.5]


def test_remarks_speak_where_there_is_something_to_say():
    assert report.remarks(report.summarise(findings(EVAL, TRAIN))) == []
    clash = quality.Clash("f", 2, "f", 1)
    refused = [Refusal("f", 3, "long_prompt", "why"), Refusal("f", 4, "empty", "why"), Refusal("f", 5, "empty", "why")]
    found = report.remarks(report.summarise(findings(TRAIN, EVAL, refused, [clash])))
    assert found == [
        "3 rows were refused (empty: 2, long prompt: 1); each is listed below.",
        "The longer response won 83% of the pairs: a reward model can score well by length alone. "
        "Judge it by what it gains over that.",
        "1 pair of responses was ranked both ways: no model can be right on both.",
    ]


def test_demonstrations_are_counted_shown_and_warned_of():
    shown = [
        Located(DemonstrationRecord(id=f"d{n}", prompt=ASK, response=f"<b>{n}</b>"), "h", n, "key", 5, (n,))
        for n in range(1, 4)
    ]
    refused = [Refusal("h", 9, "label", "why")]
    found = findings(
        EVAL,
        EVAL,
        demonstrations=part(shown[:2], shown[2:], 4, refused),
        taught=[quality.Clash("g", 1, "h", 1)],
    )
    summary = report.summarise(found)
    assert (summary["demonstrations"]["train"], summary["demonstrations"]["eval"]) == (2, 1)
    assert summary["tokens"]["demonstration_responses"]["max"] == 3
    metrics = report.metrics(summary)
    assert (metrics["demonstrations_train"], metrics["demonstrations_eval"], metrics["refused"]) == (2, 1, 1)
    assert metrics["leaked"] == 1
    assert report.remarks(summary)[-1] == (
        "Demonstrations to learn from answer 1 held-out prompt: the evaluation would ask what was taught."
    )
    page = report.render(summary, found)
    assert "2 comparisons, 2 prompts and 3 demonstrations are ready" in page
    assert "&lt;b&gt;1&lt;/b&gt;" in page
    assert "Demonstrated responses" in page
    assert "demonstration" not in report.render(report.summarise(findings(EVAL, EVAL)), findings(EVAL, EVAL))
