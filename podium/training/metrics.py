"""Write the numbers of a run: one JSON line per step, and TensorBoard event files beside it."""

import json
import math
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

METRICS_FILE = "metrics.jsonl"
EVENTS_FOLDER = "tensorboard"
# TensorBoard looks for news every few seconds; reaching the disk takes longer than a small model's host work of a step.
SECONDS_BETWEEN_SYNCS = 1.0
# Names of numbers that begin so are of the clock (`podium.training.speed`), as the time of a line is.
CLOCK_PREFIX = "perf/"


class MetricsWriter:
    """Append to `metrics.jsonl` and to TensorBoard in a folder, which each process of a run has for itself.

    A line is {"step": int, "time": seconds since 1970, name: number, ...}; a number that is not finite is null there,
    because JSON has no NaN. Whether to stop at one is the caller's business.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        resume_step: int | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Start anew, removing earlier numbers, or go on after `resume_step`, removing those of later steps.

        A run that was killed had written steps beyond its last checkpoint: they happen again, and stand once.
        """
        self._clock = clock
        # Here, because it imports torch where that is installed, and most who import this module write nothing.
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog
        from tensorboardX.proto.summary_pb2 import Summary

        def event(step: int, now: float, numbers: Mapping[str, float]) -> Event:
            values = [Summary.Value(tag=name, simple_value=value) for name, value in numbers.items()]
            return Event(step=step, wall_time=now, summary=Summary(value=values))

        self._event = event
        self._folder = Path(folder)
        events = self._folder / EVENTS_FOLDER
        events.mkdir(parents=True, exist_ok=True)
        kept = [] if resume_step is None else _lines_up_to(self._folder / METRICS_FILE, resume_step)
        _replace(self._folder / METRICS_FILE, kept)
        if resume_step is None:
            for path in events.glob("events.out.tfevents.*"):
                path.unlink()
        self._file = (self._folder / METRICS_FILE).open("a", encoding="utf-8")
        # The suffix keeps a run that is resumed within the second from overwriting the file it goes on from.
        first = 0 if resume_step is None else resume_step + 1
        # Without the writer thread of SummaryWriter, whose queue took a tenth of a small model's step.
        self._events = EventsWriter(str(events / "events"), f".{first}")
        self._waiting: list[tuple[int, float, Mapping[str, float]]] = []
        self._synced = float("-inf")
        if resume_step is not None:
            started = SessionLog(status=SessionLog.START)  # TensorBoard hides what came after
            if len(list(events.iterdir())) == 1:
                # On another machine: the lines came with the checkpoint, their events stayed behind.
                self._waiting += [_numbers_of(json.loads(line)) for line in kept]
                self.flush()
            self._events.write_event(Event(step=first, wall_time=clock(), session_log=started))

    def __enter__(self) -> "MetricsWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write(self, step: int, metrics: Mapping[str, Any], at: float | None = None) -> dict[str, float]:
        """Write one step, which ended `at` seconds since 1970 or now, and return its numbers."""
        numbers = {name: float(value) for name, value in metrics.items()}
        now = self._clock() if at is None else at
        line = {"step": step, "time": now} | {n: v if math.isfinite(v) else None for n, v in numbers.items()}
        self._file.write(json.dumps(line, allow_nan=False) + "\n")
        self._file.flush()
        self._waiting.append((step, now, numbers))
        if now - self._synced >= SECONDS_BETWEEN_SYNCS:
            self.flush()
        return numbers

    def flush(self) -> None:
        """Bring TensorBoard's events to the disk; lines are there already, events follow within a second or so."""
        for event in self._waiting:
            self._events.write_event(self._event(*event))
        self._waiting.clear()
        self._events.flush()
        self._synced = self._clock()

    def close(self) -> None:
        """Flush and close the files."""
        self._file.close()
        self.flush()
        self._events.close()


def read_metrics(folder: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Read the lines of `metrics.jsonl`, without one that a killed run left unfinished."""
    rows = []
    for line in (Path(folder) / METRICS_FILE).read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


def without_clock(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a line without what is of the clock: two runs that are equal in everything else differ in that."""
    return {name: value for name, value in row.items() if name != "time" and not name.startswith(CLOCK_PREFIX)}


def _lines_up_to(path: Path, step: int) -> list[str]:
    rows = read_metrics(path.parent) if path.exists() else []
    return [json.dumps(row) + "\n" for row in rows if row["step"] <= step]


def _numbers_of(row: dict[str, Any]) -> tuple[int, float, dict[str, float]]:
    numbers = {
        name: math.nan if value is None else value for name, value in row.items() if name not in ("step", "time")
    }
    return row["step"], row["time"], numbers


def _replace(path: Path, lines: list[str]) -> None:
    """Exchange the file in one rename: a run killed here must not lose the steps it keeps."""
    fresh = path.with_suffix(".tmp")
    fresh.write_text("".join(lines), encoding="utf-8")
    os.replace(fresh, path)
