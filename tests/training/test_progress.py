"""podium.training.progress: what is printed where, and when, by an injected clock."""

import io
import re

import pytest
from rich.console import Console

from podium.training.progress import Progress, Waiting


class Clock:
    """Tell the time that a test sets."""

    now = 100.0

    def __call__(self):
        return self.now


def lines(steps, *, total=80, **options):
    """Run a loop where each (seconds, done, figures) comes that long after the one before."""
    clock, file = Clock(), io.StringIO()
    with Progress(total, "reward", console=Console(file=file), clock=clock, **options) as progress:
        for seconds, done, figures in steps:
            clock.now += seconds
            progress.update(done, **figures)
    return file.getvalue().splitlines()


def test_the_first_line_comes_at_once():
    assert lines([]) == ["reward 0/80"]
    assert lines([], done=30) == ["reward 30/80"]


def waited(seconds, *, terminal=False, what=None):
    """Wait for a first step, with a look every second; then two steps of two seconds."""
    clock, file = Clock(), io.StringIO()
    console = Console(file=file, force_terminal=terminal, width=100)
    with Progress(40, "ppo", console=console, clock=clock, done=7) as progress:
        for second in range(seconds):
            clock.now += 1
            if second == seconds // 2 and what is not None:
                progress.wait(what)
            progress.tick()
        for done in (8, 9):
            progress.update(done, score=0.5)
            clock.now += 2
            progress.tick()
    return file.getvalue()


def test_a_first_step_that_takes_long_is_spoken_of_ever_more_rarely(monkeypatch):
    silenced = []
    monkeypatch.setattr("podium.parallel.alarm.silence_alarm", lambda: silenced.append(True))
    assert waited(9).splitlines() == ["ppo 7/40", "ppo 8/40 score 0.5"]
    assert not silenced
    assert waited(190, what="first step").splitlines() == [
        "ppo 7/40",
        *(f"ppo 7/40 compiling, {time} so far" for time in ("10 s", "20 s", "40 s", "1 min")),
        "ppo 7/40 first step, 2 min so far",
        "ppo 8/40 score 0.5",
    ]
    assert silenced, "before XLA sounds its alarm, two minutes into a compilation"


def test_work_without_steps_says_that_it_goes_on():
    clock, file = Clock(), io.StringIO()
    with Waiting("loading some/model", console=Console(file=file), clock=clock) as waiting:
        for _ in range(45):
            clock.now += 1
            waiting.tick()
    assert file.getvalue().splitlines() == [f"loading some/model, {n} s so far" for n in (10, 20, 40)]


def test_a_terminal_shows_the_wait_in_the_bar():
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", waited(50, terminal=True))
    assert "7/40 compiling, 50 s so far" in plain
    assert "\n" not in plain.strip("\r\n"), "one line that changes, not many"


def test_steps_that_end_together_say_nothing_about_the_pace():
    """A call of eight steps is one update: the pace is that of the next call, not of steps that took no time."""
    assert lines([(60, 8, {}), (16, 16, {})], done=0)[-1] == "reward 16/80 | 2 s/step | 2 min left"


def test_a_line_has_figures_pace_and_time_left():
    # The first step took 60 s, compilation among it; the pace is that of the steps behind it.
    steps = [(60, 1, {}), (31, 11, {}), (3.1, 12, {}), (6.2, 14, {"loss": 0.6123, "acc": 0.66, "rows": 1024})]
    assert lines(steps)[-1] == "reward 14/80 loss 0.612 acc 0.66 rows 1024 | 3.1 s/step | 3 min left"


def test_lines_are_five_seconds_apart_but_the_last_is_always_there():
    printed = lines([(1, done, {}) for done in range(1, 24)], total=23)
    assert [int(line.split()[1].split("/")[0]) for line in printed] == [0, 5, 10, 15, 20, 23]
    assert printed[-1] == "reward 23/23 | 1 s/step"


@pytest.mark.parametrize(
    ("total", "left"),
    [(12, "10 s"), (61, "59 s"), (62, "1 min"), (3000, "50 min"), (3602, "1 h 0 min"), (9002, "2 h 30 min")],
)
def test_the_time_left_is_in_words_for_people(total, left):
    # Ten steps in ten seconds.
    assert lines([(0, 1, {}), (10, 11, {})], total=total + 9)[-1].endswith(f"| 1 s/step | {left} left")


def test_units_and_words_can_be_named():
    line = lines([(1, 8, {}), (10, 16, {"split": "eval"})], unit="row")[-1]
    assert line == "reward 16/80 split eval | 1.2 s/row | 1 min left"


def test_large_figures_are_written_out():
    figures = {"kl": 99.96, "score": -1234.5, "lr": 1e-5, "loss": float("nan")}
    line = lines([(1, 1, {}), (125.4, 2, figures)], total=2)[-1]
    assert line == "reward 2/2 kl 100 score -1234 lr 1e-05 loss nan | 125 s/step"


def test_a_terminal_gets_a_bar():
    clock, file = Clock(), io.StringIO()
    console = Console(file=file, force_terminal=True, width=100)
    with Progress(4, "reward", console=console, clock=clock) as progress:
        for done in range(1, 4):
            clock.now += 2
            progress.update(done, loss=0.5)
    screen = file.getvalue()
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen)
    assert "3/4 loss 0.5 | 2 s/step | 2 s left" in plain
    assert plain != screen


def test_a_loop_that_fails_prints_no_last_line():
    file = io.StringIO()
    with pytest.raises(KeyError), Progress(4, "reward", console=Console(file=file), clock=Clock()):
        raise KeyError
    assert file.getvalue() == "reward 0/4\n"
