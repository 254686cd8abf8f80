"""What a finished local run shows: the verdict and its reasons, answers before and after, where the results are."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

# What a stage that ended leaves beside its outputs.
REPORTED = "executor_output.json"
# What stands out on a terminal; green reasons are in the report.
_STYLES = {"red": "bold red", "amber": "yellow", "green": "green"}


@dataclass(frozen=True)
class Summary:
    """The results of a run that a reader wants first.

    results: what evaluate found, as results.json holds it.
    """

    report: Path
    model: Path
    results: Mapping[str, Any]


def read_summary(out: Path) -> Summary:
    """Read a finished run's results from what its stages reported to KFP."""
    evaluate, export = read_reported(out, "evaluate"), read_reported(out, "export")
    results = Path(evaluate["samples"]["uri"], "results.json").read_text(encoding="utf-8")
    return Summary(
        report=_openable(Path(evaluate["report"]["uri"]), out),
        model=Path(export["model"]["uri"]),
        results=json.loads(results),
    )


def show(summary: Summary, console: Console, *, seconds: float, failed: bool) -> None:
    """Print a summary: a table of the answers on a terminal, plain lines elsewhere.

    seconds: how long the run took. failed: whether its gates fail the run.
    """
    result = summary.results["summary"]
    _line(console, "")
    show_sample = _show_sample_table if console.is_terminal else _show_sample_lines
    for sample in result["examples"]:
        show_sample(sample, console)
    _reason(console, result["verdict"], result["headline"])
    for reason in result["reasons"]:
        if reason["level"] != "green":
            _reason(console, reason["level"], reason["text"])
    _line(console, "")
    _line(console, f"Report  {summary.report}")
    _line(console, f"Model   {summary.model}")
    if failed:
        _line(console, "Gates   failed, and so does the run (exit code 3); --allow-failed-gates lets it end with 0")
    elif not summary.results["gates_passed"]:
        _line(console, "Gates   failed, which fails no run under evaluation.gates.on_failure: warn")
    _line(console, f"Done in {duration(seconds)}")


def duration(seconds: float) -> str:
    """Write a time as a reader says it: 4.2 s, 3 min 20 s, 2 h 5 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def read_reported(out: Path, stage: str) -> dict[str, Mapping[str, Any]]:
    """Return a stage's output artifacts by name, each with `uri` and `metadata`.

    Raises:
        OSError: The stage has not ended.
    """
    reported = json.loads((out / stage / REPORTED).read_text(encoding="utf-8"))["artifacts"]
    return {name: {"metadata": {}, **items["artifacts"][0]} for name, items in reported.items()}


def _openable(report: Path, out: Path) -> Path:
    """Return a report that a browser opens: KFP's output paths have no suffix, so copy it to one that has."""
    if report.suffix == ".html":
        return report
    return Path(shutil.copyfile(report, out / "report.html"))


def _reason(console: Console, level: str, text: str) -> None:
    console.print(f"{level:<6}", style=_STYLES[level], end="  ", markup=False, highlight=False)
    _line(console, text)


def _show_sample_table(sample: Mapping[str, Any], console: Console) -> None:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for label, text in _sample_rows(sample):
        table.add_row(label, Text(text))
    console.print(table)
    _line(console, "")


def _show_sample_lines(sample: Mapping[str, Any], console: Console) -> None:
    for label, text in _sample_rows(sample):
        _line(console, f"{label:<7} {' '.join(text.split())}")
    _line(console, "")


def _sample_rows(sample: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [
        ("Prompt", sample["prompt"].strip()),
        ("Before", f"{sample['baseline'].strip()}  (reward {sample['reward_baseline']:.2f})"),
        ("After", f"{sample['tuned'].strip()}  (reward {sample['reward_tuned']:.2f})"),
    ]


def _line(console: Console, text: str) -> None:
    """Print text as it is: no markup in it, no colour guessed, no line broken where a path could be copied."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)
