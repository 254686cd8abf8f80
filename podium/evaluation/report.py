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

from podium.evaluation import figures, samples, table, wording
from podium.version import __version__

# Of the sections, in their order: the name in the page's address, and the title that a reader sees.
SECTIONS = (
    ("verdict", "Verdict"),
    ("examples", "Before and after"),
    ("comparison", "Figures"),
    ("signs", "Signs of collapse"),
    ("best-of", "Best of two"),
    ("training", "Training"),
    ("judge", "Reward model"),
    ("samples", "Samples"),
    ("data", "Data"),
    ("reproduce", "Reproduce"),
)
SECTION_TITLES = tuple(title for _, title in SECTIONS)

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
class Run:
    """Where a policy comes from; None where it is not known. finished: in words; seconds: of training."""

    name: str | None = None
    finished: str | None = None
    seconds: float | None = None
    hardware: str | None = None


@dataclass(frozen=True)
class Page:
    """What a report shows beside the results.

    rows: all samples; sample_rows: how many the page holds. curves: the lines of the policy's metrics.jsonl. data: the
    data report, where there is one. run: what the header tells. config, versions and inputs (digests) say how to get
    the same again.
    """

    results: Mapping[str, Any]
    rows: Sequence[samples.Sample]
    sample_rows: int
    curves: figures.Metrics
    config: Mapping[str, Any]
    versions: Mapping[str, str] = field(default_factory=dict)
    inputs: Mapping[str, str] = field(default_factory=dict)
    data: Mapping[str, Any] | None = None
    run: Run = Run()


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
        "shortened": samples.shorten,
        "unbroken": unbroken,
    }
    environment.globals |= {"percent": wording.percent, "signed": wording.signed, "points": wording.difference}
    shown = samples.page_rows(page.rows, page.sample_rows)
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    return environment.get_template("report.html.j2").render(
        page=page,
        results=page.results,
        summary=page.results["summary"],
        model=page.results.get("reward_model"),
        table=table.rows(page.results),
        sections=SECTIONS,
        title=dict(SECTIONS),
        header=_header(page.run),
        comparison=figures.comparison_charts(page.results, page.rows),
        training=figures.training_charts(page.curves),
        judge=figures.judge_charts(page.results.get("reward_model")),
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
    text = text.replace(" %", "\u00a0%").replace(" points", "\u00a0points").replace(" [", "\u00a0[")
    return re.sub(r"\[[^\]]*\]", lambda result: result.group().replace(" ", "\u00a0"), text)


def markdown(results: Mapping[str, Any]) -> str:
    """Write headline, reasons and the table for a pull request or a pipeline's Markdown artifact."""
    summary = results["summary"]
    reasons = [f"- **{reason['level']}** {reason['text']}" for reason in summary["reasons"]]
    cells = [
        f"| {row['label']} | {row['baseline']} | {row['tuned']} | {row['change']} |" for row in table.rows(results)
    ]
    cells += [f"| {row['label']} | {row['baseline']} | {row['tuned']} | {row['change']} |" for row in summary["signs"]]
    head = ["| | baseline | tuned | change |", "|---|---|---|---|"]
    return "\n".join([f"**{summary['headline']}**", "", *reasons, "", *head, *cells]) + "\n"


def visible(text: str) -> str:
    """Name characters that would act on the display instead of standing in it: controls, writing directions."""
    return _ACTING.sub(lambda result: f"<U+{ord(result.group()):04X}>", text)


def _header(run: Run) -> list[tuple[str, str]]:
    """Say which run this is: (what, in words), only what is known."""
    took = None if run.seconds is None else wording.duration(run.seconds)
    words = {"Run": run.name, "Trained": run.finished, "Training took": took, "On": run.hardware}
    return [(label, shown) for label, shown in words.items() if shown]


def _data_rows(data: Mapping[str, Any] | None) -> list[tuple[str, str, str]]:
    """Pick counts for training and held-out data from the data report: (what, training, held-out)."""
    if not data:
        return []
    preferences, prompts = data["preferences"], data["prompts"]
    longer = {part: result["by_tokens"] for part, result in data["longer_wins"].items()}
    leaked = sum(len(rows) for rows in data["leakage"].values())
    return [
        ("Comparisons", f"{preferences['train']:,}", f"{preferences['eval']:,}"),
        ("Pairs", f"{preferences['pairs_train']:,}", f"{preferences['pairs_eval']:,}"),
        ("Pairs the longer answer wins", wording.percent(longer["train"]), wording.percent(longer["eval"])),
        ("Prompts", f"{prompts['train']:,}", f"{prompts['eval']:,}"),
        ("Refused rows", f"{len(data['refused']):,}", ""),
        *((f"– {kind.replace('_', ' ')}", f"{count:,}", "") for kind, count in data["refused_by_kind"].items()),
        ("Duplicates left out", f"{len(data['duplicates']):,}", ""),
        ("Contradictions", f"{len(data['contradictions']):,}", ""),
        ("Rows asking what held-out rows ask", f"{leaked:,}", ""),
    ]
