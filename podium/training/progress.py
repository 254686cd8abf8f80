"""Show how far a long loop is: a bar with the time left on a terminal, plain lines anywhere else."""

import threading
import time
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as Bar

from podium.parallel import alarm

# A log that is followed live should move; a log that is kept should not be all progress.
SECONDS_BETWEEN_LINES = 5.0
# A first step that takes so long is spoken of, and then ever more rarely.
FIRST_WAIT_S, LONGEST_WAIT_S = 10.0, 60.0


class Progress:
    """Count to `total` inside a `with` block; `update` after each step with the figures worth seeing.

    Plain lines read `reward 12/80 loss 0.61 acc 0.66 | 3.1 s/step | 2 min left`. The first is printed at once, the
    others about every five seconds, the last one always. The pace is measured from the first step's end, so that
    compilation does not count; `done` is where a resumed loop begins.

    Until the first update, lines read `reward 0/80 compiling, 1 min so far`: after ten seconds, and then ever more
    rarely. XLA's own word about a slow compilation is left out then.
    """

    def __init__(
        self,
        total: int,
        label: str,
        *,
        done: int = 0,
        unit: str = "step",
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._total, self._label, self._done, self._unit = total, label, done, unit
        self._console = Console(stderr=True) if console is None else console
        self._clock = clock
        self._first: tuple[float, int] | None = None
        self._printed = float("-inf")
        self._bar: Bar | None = None
        self._waiting = "compiling"
        self._begun = clock()
        self._next = FIRST_WAIT_S
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._ticker = threading.Thread(target=self._tick, daemon=True)

    def __enter__(self) -> "Progress":
        if self._console.is_terminal:
            figures = TextColumn("{task.fields[text]}", markup=False)
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), figures)
            self._bar = Bar(*columns, console=self._console)
            self._task = self._bar.add_task(self._label, total=self._total, completed=self._done, text="")
            self._bar.start()
        else:
            self._print("")
        self._ticker.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._ticker.join()
        if self._bar is not None:
            self._bar.stop()

    def update(self, done: int, **figures: Any) -> None:
        """Say that `done` of the total are done (not how many more), with figures to show."""
        self._over.set()
        with self._lock:
            now = self._clock()
            self._done = done
            if self._first is None:
                self._first = now, done
            shown = " ".join(f"{name} {_figure(value)}" for name, value in figures.items())
            text = " | ".join((shown, *self._pace(now))).strip()
            if self._bar is not None:
                self._bar.update(self._task, completed=done, text=text)
            elif now - self._printed >= SECONDS_BETWEEN_LINES or done >= self._total:
                self._print(text)

    def wait(self, what: str) -> None:
        """Say what the loop waits for until its first update, instead of a compilation."""
        self._waiting = what

    def tick(self) -> None:
        """Say how long the loop has been waiting, if there was no update yet and it is time to."""
        with self._lock:
            if self._first is not None:
                return
            waited = self._clock() - self._begun
            text = f"{self._waiting}, {_duration(waited)} so far"
            if self._bar is not None:
                self._bar.update(self._task, text=text, refresh=True)
            elif waited >= self._next:
                self._next = waited + min(waited, LONGEST_WAIT_S)
                self._print(text)
        if waited >= alarm.AFTER_S / 2:
            alarm.silence_alarm()

    def _tick(self) -> None:
        while not self._over.wait(1.0):
            self.tick()

    def _print(self, text: str) -> None:
        self._printed = self._clock()
        line = f"{self._label} {self._done}/{self._total} {text}".rstrip()
        # Rich would wrap a long line at 80 columns and colour its numbers.
        self._console.file.write(line + "\n")
        self._console.file.flush()

    def _pace(self, now: float) -> list[str]:
        if self._first is None or self._done <= self._first[1]:
            return []
        per_step = (now - self._first[0]) / (self._done - self._first[1])
        left = _duration(per_step * (self._total - self._done))
        return [f"{_number(per_step, 2)} s/{self._unit}", *([f"{left} left"] if self._done < self._total else [])]


class Waiting:
    """Say of work without steps, inside a `with` block, that it goes on: `loading some/model, 20 s so far`.

    After ten seconds, and then ever more rarely.
    """

    def __init__(
        self, what: str, *, console: Console | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._what, self._clock, self._begun, self._next = what, clock, clock(), FIRST_WAIT_S
        self._console = Console(stderr=True) if console is None else console
        self._over = threading.Event()
        self._ticker = threading.Thread(target=self._tick, daemon=True)

    def __enter__(self) -> "Waiting":
        self._ticker.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._ticker.join()

    def tick(self) -> None:
        """Say it, if it is time to."""
        waited = self._clock() - self._begun
        if waited >= self._next:
            self._next = waited + min(waited, LONGEST_WAIT_S)
            self._console.file.write(f"{self._what}, {_duration(waited)} so far\n")
            self._console.file.flush()

    def _tick(self) -> None:
        while not self._over.wait(1.0):
            self.tick()


def _figure(value: Any) -> str:
    if isinstance(value, str | int):
        return str(value)
    return _number(float(value), 3)


def _number(value: float, digits: int) -> str:
    """Round to significant digits, but never into 1.2e+02."""
    return f"{value:.{digits}g}" if abs(value) < 10**digits - 0.5 else f"{value:.0f}"


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{seconds / 60:.0f} min"
    return f"{int(seconds // 3600)} h {int(seconds % 3600 // 60)} min"
