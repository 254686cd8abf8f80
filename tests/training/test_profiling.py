"""A few steps are traced with JAX's profiler. Seen to fail: with a trace that starts a step late, or never."""

from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from podium.errors import UserError
from podium.training.profiling import Profile, Profiler


def run(folder: Path, text: str, calls: list[range], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Go through calls as the loop does; returns what happened, in order."""
    happened: list[str] = []
    start, stop = jax.profiler.start_trace, jax.profiler.stop_trace
    monkeypatch.setattr("jax.profiler.start_trace", lambda where: (happened.append("start"), start(where)))
    monkeypatch.setattr("jax.profiler.stop_trace", lambda: (happened.append("stop"), stop()))
    with Profiler(Profile.parse(text, folder)) as profiler:
        pending = None
        for steps in calls:
            profiler.before(steps)
            happened.append(f"steps {steps.start + 1}-{steps.stop}")
            jnp.arange(3).sum().block_until_ready()
            if pending is not None:
                profiler.after(pending)
            pending = steps.stop
    return happened


@pytest.mark.parametrize(
    ("text", "calls", "expected"),
    [
        ("2:1", [range(0, 1), range(1, 2), range(2, 3), range(3, 4)], "1-1 start 2-2 3-3 stop 4-4"),
        ("2:2", [range(0, 1), range(1, 2), range(2, 3), range(3, 4)], "1-1 start 2-2 3-3 4-4 stop"),
        ("3:1", [range(0, 4), range(4, 8), range(8, 12)], "start 1-4 5-8 stop 9-12"),
        ("4:9", [range(0, 4)], "start 1-4 stop"),
        ("9:1", [range(0, 4)], "1-4"),
    ],
)
def test_the_calls_of_these_steps_are_traced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, calls: list[range], expected: str
) -> None:
    happened = run(tmp_path / "profile", text, calls, monkeypatch)
    assert " ".join(happened).replace("steps ", "") == expected
    assert bool(list(tmp_path.rglob("*.xplane.pb"))) == ("start" in happened)


@pytest.mark.parametrize("text", ["", "3", "0:1", "1:0", "a:b", "1:2:3", "-1:2"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="write STEP:COUNT"):
        Profile.parse(text, Path("profile"))
