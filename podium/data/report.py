"""Put what was found in a data set into one dictionary, and that into a page that needs nothing else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from podium.data.collect import Collected, Located
from podium.data.quality import Clash, LongerWins
from podium.data.records import DemonstrationRecord, PreferenceRecord, PromptRecord, pairs

HISTOGRAM_BINS = 32
PAGE_ROWS = 200
PAGE_SAMPLES = 4
# Where the longer response wins more often than this, a reward model can look good by counting words. People picked
# the longer one in 64 % of AlpacaEval's pairs.
LENGTH_BIAS = 0.64
PERCENTILES = (0, 50, 95, 100)


@dataclass(frozen=True)
class Part:
    """One of the data sets, after all checks."""

    collected: Collected[Any]
    train: Sequence[Located[Any]]
    eval: Sequence[Located[Any]]
    duplicates: Sequence[Clash]
    leaked: Sequence[Clash]
    renamed_ids: int


EMPTY = Part(Collected([], [], []), (), (), (), (), 0)


@dataclass(frozen=True)
class Findings:
    """Everything the report tells."""

    preferences: Part
    prompts: Part
    demonstrations: Part
    tied: int
    contradictions: Sequence[Clash]
    held_out_in_prompts: Sequence[Clash]
    held_out_in_demonstrations: Sequence[Clash]
    longer_wins: Mapping[str, LongerWins]
    settings: Mapping[str, Any]
    notes: Sequence[str]

    @property
    def parts(self) -> tuple[Part, ...]:
        return self.preferences, self.prompts, self.demonstrations


def summarise(findings: Findings) -> dict[str, Any]:
    """Return the report as JSON has it."""
    refused = [item for part in findings.parts for item in part.collected.refused]
    return {
        "preferences": {
            **_part(findings.preferences),
            "pairs_train": _pair_count(findings.preferences.train),
            "pairs_eval": _pair_count(findings.preferences.eval),
            "tied": findings.tied,
            "candidates": _candidate_counts([*findings.preferences.train, *findings.preferences.eval]),
        },
        "prompts": _part(findings.prompts),
        "demonstrations": _part(findings.demonstrations),
        "longer_wins": {name: asdict(value) for name, value in findings.longer_wins.items()},
        "tokens": _token_statistics(findings),
        "refused": [asdict(item) for item in refused],
        "refused_by_kind": dict(Counter(item.kind for item in refused).most_common()),
        "duplicates": [asdict(item) for part in findings.parts for item in part.duplicates],
        "contradictions": [asdict(item) for item in findings.contradictions],
        "leakage": {
            "preferences": [asdict(item) for item in findings.preferences.leaked],
            "prompts": [asdict(item) for item in findings.prompts.leaked],
            "demonstrations": [asdict(item) for item in findings.demonstrations.leaked],
            "held_out_preferences_in_training_prompts": [asdict(item) for item in findings.held_out_in_prompts],
            "held_out_prompts_in_training_demonstrations": [
                asdict(item) for item in findings.held_out_in_demonstrations
            ],
        },
        "settings": dict(findings.settings),
        "notes": list(findings.notes),
    }


def _part(part: Part) -> dict[str, Any]:
    return {
        "files": [asdict(item) for item in part.collected.files],
        "rows": sum(item.rows for item in part.collected.files),
        "refused": len(part.collected.refused),
        "duplicates": len(part.duplicates),
        "leaked": len(part.leaked),
        "renamed_ids": part.renamed_ids,
        "train": len(part.train),
        "eval": len(part.eval),
        "distinct_prompts_train": len({row.key for row in part.train}),
        "distinct_prompts_eval": len({row.key for row in part.eval}),
    }


def _pair_count(rows: Sequence[Located[PreferenceRecord]]) -> int:
    return sum(1 for row in rows for _ in pairs(row.record))


def _candidate_counts(rows: Sequence[Located[PreferenceRecord]]) -> dict[str, int]:
    counts = Counter(len(row.record.responses) for row in rows)
    return {str(size): counts[size] for size in sorted(counts)}


def _token_statistics(findings: Findings) -> dict[str, Any]:
    compared = [*findings.preferences.train, *findings.preferences.eval]
    asked = [*findings.prompts.train, *findings.prompts.eval]
    shown = [*findings.demonstrations.train, *findings.demonstrations.eval]
    return {
        "preference_prompts": _statistics([row.prompt_tokens for row in compared]),
        "best_responses": _statistics(_response_tokens(compared, lambda rank, ranks: rank == min(ranks))),
        "other_responses": _statistics(_response_tokens(compared, lambda rank, ranks: rank != min(ranks))),
        "prompts": _statistics([row.prompt_tokens for row in asked]),
        "demonstration_prompts": _statistics([row.prompt_tokens for row in shown]),
        "demonstration_responses": _statistics([count for row in shown for count in row.response_tokens]),
    }


def _response_tokens(
    rows: Sequence[Located[PreferenceRecord]], wanted: Callable[[int, Sequence[int]], bool]
) -> list[int]:
    return [
        count
        for row in rows
        for rank, count in zip(row.record.ranks, row.response_tokens, strict=True)
        if wanted(rank, row.record.ranks)
    ]


def _statistics(values: Sequence[int]) -> dict[str, Any]:
    """Return percentiles and a histogram of whole numbers, with bins of equal whole width."""
    if not values:
        return {"count": 0}
    array = np.asarray(values)
    width = max(1, -(-(int(array.max()) + 1) // HISTOGRAM_BINS))
    counts = np.bincount(array // width)
    low, median, high, top = (int(np.percentile(array, share, method="inverted_cdf")) for share in PERCENTILES)
    return {
        "count": len(values),
        "mean": round(float(array.mean()), 2),
        "min": low,
        "median": median,
        "p95": high,
        "max": top,
        "histogram": {"width": width, "counts": counts.tolist()},
    }


def metrics(report: Mapping[str, Any]) -> dict[str, float]:
    """Return the flat figures that pipelines compare."""
    preferences, prompts, longer = report["preferences"], report["prompts"], report["longer_wins"]
    demonstrations = report["demonstrations"]
    rows = preferences["rows"] + prompts["rows"] + demonstrations["rows"]
    return {
        "preferences_train": float(preferences["train"]),
        "preferences_eval": float(preferences["eval"]),
        "pairs_train": float(preferences["pairs_train"]),
        "pairs_eval": float(preferences["pairs_eval"]),
        "prompts_train": float(prompts["train"]),
        "prompts_eval": float(prompts["eval"]),
        "demonstrations_train": float(demonstrations["train"]),
        "demonstrations_eval": float(demonstrations["eval"]),
        "refused": float(len(report["refused"])),
        "refused_fraction": len(report["refused"]) / max(rows, 1),
        "duplicates": float(len(report["duplicates"])),
        "contradictions": float(len(report["contradictions"])),
        "leaked": float(sum(map(len, report["leakage"].values()))),
        "longer_wins_characters_train": longer["train"]["by_characters"],
        "longer_wins_tokens_train": longer["train"]["by_tokens"],
        "longer_wins_characters_eval": longer["eval"]["by_characters"],
        "longer_wins_tokens_eval": longer["eval"]["by_tokens"],
    }


def remarks(report: Mapping[str, Any]) -> list[str]:
    """Return what a reader should know before training on this data, one sentence each."""
    longer, leakage = report["longer_wins"]["train"], report["leakage"]
    result = list(report["notes"])
    if report["refused"]:
        kinds = ", ".join(f"{kind.replace('_', ' ')}: {count}" for kind, count in report["refused_by_kind"].items())
        result.append(
            f"{_counted(len(report['refused']), 'row was', 'rows were')} refused ({kinds}); each is listed below."
        )
    if longer["pairs"] and longer["by_characters"] > LENGTH_BIAS:
        result.append(
            f"The longer response won {longer['by_characters']:.0%} of the pairs: a reward model can score well by "
            "length alone. Judge it by what it gains over that."
        )
    if report["contradictions"]:
        result.append(
            f"{_counted(len(report['contradictions']), 'pair of responses was', 'pairs of responses were')} "
            "ranked both ways: no model can be right on both."
        )
    if count := sum(len(leakage[name]) for name in ("preferences", "prompts", "demonstrations")):
        result.append(
            f"{_counted(count, 'training row was', 'training rows were')} left out, as held-out files ask the same."
        )
    if leakage["held_out_preferences_in_training_prompts"]:
        count = len(leakage["held_out_preferences_in_training_prompts"])
        result.append(f"PPO trains on the prompts of {_counted(count, 'held-out comparison', 'held-out comparisons')}.")
    if leakage["held_out_prompts_in_training_demonstrations"]:
        count = len(leakage["held_out_prompts_in_training_demonstrations"])
        result.append(
            f"Demonstrations to learn from answer {_counted(count, 'held-out prompt', 'held-out prompts')}: the "
            "evaluation would ask what was taught."
        )
    return result


def _counted(count: int, one: str, many: str) -> str:
    return f"{count:,} {one if count == 1 else many}"


def render(report: Mapping[str, Any], findings: Findings) -> str:
    """Return the report as one HTML page without scripts and without anything to load."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("podium.data"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template("report.html.j2").render(
        report=report,
        remarks=remarks(report),
        metrics=metrics(report),
        charts=_charts(report["tokens"]),
        samples=_samples(findings.preferences.train),
        prompts=_samples(findings.prompts.train),
        demonstrations=_samples(findings.demonstrations.train),
        page_rows=PAGE_ROWS,
    )


def _samples(rows: Sequence[Located[Any]]) -> list[PreferenceRecord | PromptRecord | DemonstrationRecord]:
    """Return a few records from all over the set."""
    stride = max(1, len(rows) // PAGE_SAMPLES)
    return [row.record for row in rows[::stride][:PAGE_SAMPLES]]


def _charts(tokens: Mapping[str, Any]) -> list[dict[str, Any]]:
    titles = {
        "preference_prompts": "Prompts of the comparisons",
        "prompts": "Prompts for PPO",
        "best_responses": "Best responses",
        "other_responses": "Other responses",
        "demonstration_prompts": "Prompts of the demonstrations",
        "demonstration_responses": "Demonstrated responses",
    }
    return [chart(title, tokens[name]) for name, title in titles.items() if tokens[name]["count"]]


def chart(title: str, statistics: Mapping[str, Any], width: int = 320, height: int = 96) -> dict[str, Any]:
    """Return the bars of a histogram as rectangles of an SVG, with what a reader sees on pointing at each."""
    counts, bin_width = statistics["histogram"]["counts"], statistics["histogram"]["width"]
    step, top = width / len(counts), max(counts)
    bars = []
    for place, count in enumerate(counts):
        tall = round(max(height * count / top, 1.0 if count else 0.0), 2)
        start, end = place * bin_width, (place + 1) * bin_width - 1
        span = str(start) if start == end else f"{start} to {end}"
        bars.append(
            {
                "x": round(place * step, 2),
                "y": round(height - tall, 2),
                "width": round(max(step - 1, 0.5), 2),
                "height": tall,
                "label": f"{span} tokens: {count}",
            }
        )
    end = len(counts) * bin_width
    marks = [
        {"name": name, "value": statistics[name], "x": round(width * (statistics[name] + 0.5) / end, 2)}
        for name in ("median", "p95")
    ]
    return {**statistics, "title": title, "bars": bars, "marks": marks, "end": end, "width": width, "height": height}
