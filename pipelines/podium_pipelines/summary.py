"""What a finished local run shows: where the results are, the headline numbers, answers before and after."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

SHOWN = 3


@dataclass(frozen=True)
class Summary:
    """The results of a run that a reader wants first."""

    report: Path
    model: Path
    metrics: dict[str, float]
    samples: list[dict[str, Any]]


def read_summary(out: Path) -> Summary:
    """Read a finished run's results from what its stages reported to KFP."""
    evaluate, export = _artifacts(out, "evaluate"), _artifacts(out, "export")
    lines = Path(evaluate["samples"]["uri"], "samples.jsonl").read_text(encoding="utf-8").splitlines()
    return Summary(
        report=_openable(Path(evaluate["report"]["uri"]), out),
        model=Path(export["model"]["uri"]),
        metrics={name: value for name, value in evaluate["metrics"]["metadata"].items() if _is_number(value)},
        samples=[json.loads(line) for line in islice(lines, SHOWN)],
    )


def show(summary: Summary, console: Console, *, seconds: float) -> None:
    """Print a summary: tables on a terminal, plain lines elsewhere; `seconds` is how long the run took."""
    _line(console, "")
    _show_metrics(summary.metrics, console)
    show_sample = _show_sample_table if console.is_terminal else _show_sample_lines
    for sample in summary.samples:
        show_sample(sample, console)
    _line(console, f"Report  {summary.report}")
    _line(console, f"Model   {summary.model}")
    _line(console, f"Done in {duration(seconds)}")


def duration(seconds: float) -> str:
    """Write a time as a reader says it: 4.2 s, 3 min 20 s, 2 h 5 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _artifacts(out: Path, stage: str) -> dict[str, Mapping[str, Any]]:
    """Return a stage's output artifacts by name, each with `uri` and `metadata`."""
    reported = json.loads((out / stage / "executor_output.json").read_text(encoding="utf-8"))["artifacts"]
    return {name: {"metadata": {}, **items["artifacts"][0]} for name, items in reported.items()}


def _openable(report: Path, out: Path) -> Path:
    """Return a report that a browser opens: KFP's output paths have no suffix, so copy it to one that has."""
    if report.suffix == ".html":
        return report
    return Path(shutil.copyfile(report, out / "report.html"))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _show_metrics(metrics: Mapping[str, float], console: Console) -> None:
    width = max(map(len, metrics), default=0)
    for name, value in metrics.items():
        _line(console, f"{name:<{width}}  {value:.4g}")
    _line(console, "")


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
        ("Prompt", prompt_text(sample["prompt"])),
        ("Before", f"{sample['baseline'].strip()}  (reward {sample['reward_baseline']:.2f})"),
        ("After", f"{sample['tuned'].strip()}  (reward {sample['reward_tuned']:.2f})"),
    ]


def prompt_text(prompt: str | list[Mapping[str, str]]) -> str:
    """Return the last message of a prompt: what is answered."""
    return prompt.strip() if isinstance(prompt, str) else prompt[-1]["content"].strip()


def _line(console: Console, text: str) -> None:
    """Print text as it is: no markup in it, no colour guessed, no line broken where a path could be copied."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)
