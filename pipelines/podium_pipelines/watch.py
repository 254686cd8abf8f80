"""Show how far a run is: as lines, and on a terminal as a table that moves."""

import contextlib
import datetime
import time
from collections.abc import Callable, Iterable, Iterator

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from podium.errors import UserError
from podium_pipelines.remote import Remote, RunState, ServiceUnreachable, Task
from podium_pipelines.run_results import Found
from podium_pipelines.summary import duration

_STYLES = {"succeeded": "green", "failed": "bold red", "error": "bold red", "running": "bold", "canceled": "yellow"}
_INDENT = " " * 10
# A port-forward that is opened again, or a server that is updated.
_MISSES = 6


def lines(run: RunState) -> list[str]:
    """Return the lines that show a run: one for each stage, with the reasons below it, and one for the whole."""
    result = [line for stage, task in run.stages.items() for line in [_line(stage, task), *_reasons(task)]]
    whole = Task(run.state, run.begun, run.ended, reason=(run.error,) if run.error else ())
    return [*result, _line("run", whole), *_reasons(whole)]


def listed(runs: Iterable[tuple[str, RunState, Found]]) -> list[str]:
    """Return the lines of a list of runs, in columns, with a heading."""
    rows = [("NAME", "STATE", "BEGAN", "TOOK", "VERDICT", "REWARD", "RUN")]
    for run, state, found in runs:
        began = f"{state.begun.astimezone():%Y-%m-%d %H:%M}" if state.begun else ""
        rows.append((state.name, state.state, began, _time(state), found.verdict, found.gain, run))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def follow(remote: Remote, run: str, console: Console, *, poll_s: float = 10.0) -> RunState:
    """Show a run until it ends, and return its last state.

    Raises:
        UserError: A stage cannot start, or the service is gone for a while.
    """
    misses = 0
    with _shown(console) as show:
        while True:
            try:
                now = remote.state(run)
            except ServiceUnreachable:
                misses += 1
                if misses >= _MISSES:
                    raise
            else:
                misses = 0
                show(now)
                if now.finished:
                    return now
                _refuse_stuck(now, run)
            time.sleep(poll_s)


def _refuse_stuck(state: RunState, run: str) -> None:
    for stage, task in state.stages.items():
        if task.stuck:
            raise UserError(
                f"{stage} cannot start: {' '.join(task.reason)}\n"
                f"The run waits for it: mend it and write podium status {run}, or end it with podium cancel {run}"
            )


@contextlib.contextmanager
def _shown(console: Console) -> Iterator[Callable[[RunState], None]]:
    """Yield what shows each state: a table that moves on a terminal, elsewhere a line for each change."""
    if console.is_terminal:
        latest: list[RunState] = []
        with Live(console=console, refresh_per_second=1, get_renderable=lambda: _table(latest)) as live:

            def show(state: RunState) -> None:
                latest[:] = [state]
                live.refresh()

            yield show
        return
    known: set[str] = set()

    def say(state: RunState) -> None:
        told = [f"Note: {state.note}"] if state.note else []
        for stage, task in state.stages.items():
            told += [_line(stage, task, running=False), *_reasons(task)]
        for line in told:
            if line not in known:
                known.add(line)
                console.print(line, markup=False, highlight=False, soft_wrap=True)
        console.file.flush()

    yield say


def _table(states: list[RunState]) -> Table:
    """Return the table of a state; an empty one before the first."""
    table = Table.grid(padding=(0, 2))
    for state in states:
        for stage, task in state.stages.items():
            time_ = "" if task.cached else _time(task)
            table.add_row(stage, _coloured(task.state), time_, _folded([_remarks(task), *task.reason]))
        table.add_row("run", _coloured(state.state), _time(state), _folded([state.error, state.note]))
    return table


def _coloured(word: str) -> Text:
    return Text(word, style=_STYLES.get(word, ""))


def _folded(lines: list[str]) -> Text:
    return Text("\n".join(filter(None, lines)), overflow="fold")


def _line(stage: str, task: Task, *, running: bool = True) -> str:
    """Return a stage's line; `running`: with the time so far, which makes each look another line."""
    time_ = _time(task) if (running or task.finished) and not task.cached else ""
    return "  ".join(part for part in (f"{stage:<9} {task.state}", time_, _remarks(task)) if part)


def _reasons(task: Task) -> list[str]:
    return [f"{_INDENT}{line}" for line in task.reason]


def _remarks(task: Task) -> str:
    remarks = ["cached"] if task.cached else []
    return ", ".join([*remarks, *([f"{task.attempts} attempts"] if task.attempts > 1 else [])])


def _time(item: Task | RunState) -> str:
    """Return how long a stage or a run took, or takes so far."""
    if item.begun is None or (item.finished and item.ended is None):
        return ""
    end = item.ended or datetime.datetime.now(datetime.UTC)
    return duration(max((end - item.begun).total_seconds(), 0))
