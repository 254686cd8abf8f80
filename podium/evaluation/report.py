"""Write the report of a run: one HTML page that needs nothing else, and its Markdown twin.

The page opens from disk and in a sandboxed frame: style and script are inside it, nothing is loaded, and a content
security policy allows the one script by its digest, so that text a model wrote can never run. It works without script;
script adds sorting and searching of the samples.
"""

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jinja2
from markupsafe import Markup

from podium.evaluation import charts, samples, table, wording
from podium.evaluation.preference import histogram
from podium.version import __version__

Metrics = Sequence[Mapping[str, Any]]

# All controls but tab and line feed, and the embeddings, overrides and isolates of bidirectional text.
_ACTING = re.compile("[\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f\\u202a-\\u202e\\u2066-\\u2069]")

SCRIPT = """
const list = document.querySelector(".samples"), tools = document.querySelector(".tools");
if (list && tools) {
  const rows = [...list.children], count = tools.querySelector("output");
  const search = tools.querySelector("input"), order = tools.querySelector("select");
  const show = () => {
    const words = search.value.toLowerCase();
    const found = rows.filter(row => (row.hidden = !row.textContent.toLowerCase().includes(words), !row.hidden));
    count.textContent = found.length + " of " + rows.length;
  };
  const sort = () => {
    const [key, sign] = order.value.split(" ");
    list.append(...rows.sort((a, b) => sign * (a.dataset[key] - b.dataset[key])));
  };
  search.addEventListener("input", show);
  order.addEventListener("change", sort);
  tools.hidden = false;
  show();
}
"""


@dataclass(frozen=True)
class Page:
    """What a report shows beside the results.

    rows: all samples; sample_rows: how many the page holds. curves: the lines of the policy's metrics.jsonl. data: the
    data report, where there is one. config, versions and inputs (digests) say how to get the same again.
    """

    results: Mapping[str, Any]
    rows: Sequence[samples.Row]
    sample_rows: int
    curves: Metrics
    config: Mapping[str, Any]
    versions: Mapping[str, str] = field(default_factory=dict)
    inputs: Mapping[str, str] = field(default_factory=dict)
    data: Mapping[str, Any] | None = None


def html(page: Page) -> str:
    """Render the page; the same input gives the same bytes."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("podium.evaluation"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {
        "number": wording.number,
        "percent": wording.percent,
        "signed": wording.signed,
        "estimate": wording.estimate,
        "visible": visible,
        "unbroken": unbroken,
    }
    environment.globals |= {"percent": wording.percent, "points": _points}
    shown = samples.page_rows(page.rows, page.sample_rows)
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    return environment.get_template("report.html.j2").render(
        page=page,
        results=page.results,
        summary=page.results["summary"],
        model=page.results.get("reward_model"),
        table=table.rows(page.results),
        comparison=_comparison_charts(page),
        training=training_charts(page.curves),
        minutes=_minutes(page.curves),
        judge=_judge_charts(page.results.get("reward_model")),
        shown=shown,
        change=samples.change,
        instruction=samples.shared_instruction(page.rows),
        data=_data_rows(page.data),
        config=json.dumps(page.config, indent=1, ensure_ascii=False),
        version=__version__,
        script=Markup(SCRIPT),  # a constant of this module
        script_digest=digest,
    )


def unbroken(text: str) -> str:
    """Keep a figure, its unit and its interval on one line."""
    text = text.replace(" %", "\u00a0%").replace(" [", "\u00a0[")
    return re.sub(r"\[[^\]]*\]", lambda found: found.group().replace(" ", "\u00a0"), text)


def markdown(results: Mapping[str, Any]) -> str:
    """Write headline, reasons and the table for a pull request or a pipeline's Markdown artifact."""
    summary = results["summary"]
    reasons = [f"- **{reason['level']}** {reason['text']}" for reason in summary["reasons"]]
    cells = [
        f"| {row['label']} | {row['baseline']} | {row['tuned']} | {row['change']} |" for row in table.rows(results)
    ]
    head = ["| | baseline | tuned | change |", "|---|---|---|---|"]
    return "\n".join([f"**{summary['headline']}**", "", *reasons, "", *head, *cells]) + "\n"


def visible(text: str) -> str:
    """Name characters that would act on the display instead of standing in it: controls, writing directions."""
    return _ACTING.sub(lambda found: f"<U+{ord(found.group()):04X}>", text)


def training_charts(curves: Metrics) -> list[tuple[str, Markup]]:
    """Draw what PPO logged, (title, SVG): only charts whose figures are there."""
    score, rlhf = _curve(curves, "objective/scores"), _curve(curves, "objective/rlhf_reward")
    kl, length = _curve(curves, "objective/kl"), _curve(curves, "objective/response_length")
    ended = [
        (row["step"], row["val/num_eos_tokens"] * row["step"] / row["episode"])
        for row in curves
        if row.get("val/num_eos_tokens") is not None and row.get("episode")
    ]
    both = dict(kl)
    against = [(both[step], value) for step, value in score if step in both]
    found = [
        ("Reward of the rollouts", score, lambda: charts.lines(_reward_series(score, rlhf), x="PPO step", y="reward")),
        ("KL from the reference", kl, lambda: _one_line("KL", kl, "nats per answer")),
        ("Reward against KL, pale to full over the steps", against, lambda: charts.trail(against, x="KL", y="reward")),
        ("Answer length", length, lambda: _one_line("length", length, "tokens")),
        ("Answers that end by themselves", ended, lambda: _one_line("ended", ended, "share", wording.percent)),
    ]
    return [(title, Markup(draw())) for title, points, draw in found if points]  # charts escape text


def _reward_series(score: list[charts.Point], rlhf: list[charts.Point]) -> list[charts.Series]:
    series = [charts.Series("reward model", score, "b")]
    return [*series, charts.Series("less the KL penalty", rlhf, "a")] if rlhf else series


def _one_line(name: str, points: list[charts.Point], unit: str, write: wording.Write = wording.number) -> str:
    return charts.lines([charts.Series(name, points, "b")], x="PPO step", y=unit, write=write)


def _curve(curves: Metrics, name: str) -> list[charts.Point]:
    return [(row["step"], row[name]) for row in curves if row.get(name) is not None]


def _comparison_charts(page: Page) -> list[tuple[str, Markup]]:
    found = histogram([samples.change(row) for row in page.rows])
    reward = page.results["reward"]
    bars = charts.histogram(
        found["edges"], found["counts"], x="reward change of one answer", below="worse", above="better"
    )
    sides = [("baseline", reward["baseline"], "a"), ("tuned", reward["tuned"], "b")]
    means = charts.intervals(sides, x="mean reward", middle=reward["baseline"]["value"], write=wording.number)
    return [("Reward change, answer by answer", Markup(bars)), ("Mean reward", Markup(means))]


def _judge_charts(model: Mapping[str, Any] | None) -> list[tuple[str, Markup]]:
    if not model:
        return []
    rules = [(f"longer wins ({unit})", found, "a") for unit, found in model["longer_wins"].items()]
    accuracy = charts.intervals(
        [("reward model", model["accuracy"], "b"), *rules],
        x="held-out pairs ordered as the raters did",
        middle=0.5,
        write=wording.percent,
    )
    margins = charts.histogram(
        model["margins"]["edges"], model["margins"]["counts"], x="score margin", below="wrong", above="right"
    )
    drawn = [
        ("Accuracy beside the length rule", accuracy),
        ("Calibration", charts.reliability(model["calibration"]["bins"])),
        ("Margins of held-out pairs", margins),
    ]
    return [(title, Markup(chart)) for title, chart in drawn]  # charts escape their text


def _points(value: float | None, like: float | None = None) -> str:
    """Write a difference of shares in percentage points."""
    return wording.MISSING if value is None else f"{100 * value:+.1f}".replace("-", wording.MINUS)


def _minutes(curves: Metrics) -> float | None:
    times = [row["time"] for row in curves if row.get("time") is not None]
    return (times[-1] - times[0]) / 60 if len(times) > 1 else None


def _data_rows(data: Mapping[str, Any] | None) -> list[tuple[str, str, str]]:
    """Pick counts for training and held-out data from the data report: (what, training, held-out)."""
    if not data:
        return []
    preferences, prompts = data["preferences"], data["prompts"]
    longer = {part: found["by_tokens"] for part, found in data["longer_wins"].items()}
    leaked = sum(len(rows) for rows in data["leakage"].values())
    return [
        ("Comparisons", f"{preferences['train']:,}", f"{preferences['eval']:,}"),
        ("Pairs", f"{preferences['pairs_train']:,}", f"{preferences['pairs_eval']:,}"),
        ("Pairs the longer answer wins", wording.percent(longer["train"]), wording.percent(longer["eval"])),
        ("Prompts", f"{prompts['train']:,}", f"{prompts['eval']:,}"),
        ("Refused rows", f"{len(data['refused']):,}", ""),
        ("Duplicates left out", f"{len(data['duplicates']):,}", ""),
        ("Contradictions", f"{len(data['contradictions']):,}", ""),
        ("Rows asking what held-out rows ask", f"{leaked:,}", ""),
    ]
