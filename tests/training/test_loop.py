"""podium.training.loop: what a step reports arrives whole, in order, and before a checkpoint that relies on it."""

import jax
import jax.numpy as jnp
import pytest

from podium.errors import UserError
from podium.training.loop import run_loop
from podium.training.metrics import read_metrics
from podium.training.scalars import Scalars, reporting
from support.events import event_steps


def run(folder, *, total=5, **options):
    """Count up from 0 and report the count; returns it."""

    def count(state):
        return {"count": state["count"] + 1}, {"loss": state["count"] / 4.0, "rows": state["count"].astype(jnp.int32)}

    compiled = jax.jit(reporting(count))
    settings = {
        "total": total,
        "label": "count",
        "folder": folder,
        "checkpoints": str(folder / "checkpoints"),
        "fingerprint": "same",
        "save_steps": 2,
        "logging_steps": 1,
        "shown": {"loss": "loss"},
        "known": lambda done: {"episode": done * 16},
    }
    start = {"count": jnp.float32(0.0)}
    return float(run_loop(lambda _, state: (*compiled(state), None), start, **(settings | options))["count"])


def test_a_line_holds_the_numbers_of_its_step_and_what_was_known_of_it(tmp_path):
    run(tmp_path)
    rows = [{name: value for name, value in row.items() if name != "time"} for row in read_metrics(tmp_path)]
    assert rows == [{"step": n + 1, "loss": n / 4, "rows": n, "episode": 16 * (n + 1)} for n in range(5)]


def test_a_checkpoint_is_saved_after_its_events(tmp_path):
    """A run that is killed goes on from the checkpoint: numbers that led to it are never made again."""

    def check(done, _):
        if done == 3:
            seen.extend(event_steps(tmp_path))

    seen = []
    run(tmp_path, check=check)
    assert seen == [1, 2]
    assert event_steps(tmp_path) == [1, 2, 3, 4, 5]


def test_a_stopped_run_goes_on_with_the_numbers_it_would_have_had(tmp_path):
    def stop(done, _):
        if done == 4:
            raise UserError("stop")

    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert run(whole) == 5
    with pytest.raises(UserError, match="stop"):
        run(stopped, check=stop)
    assert run(stopped) == 5
    numbers = [[row["loss"] for row in read_metrics(folder)] for folder in (whole, stopped)]
    assert numbers[0] == numbers[1]


def test_scalars_keep_names_and_order_through_a_program():
    packed = jax.jit(lambda x: Scalars.pack({"b": x, "a": jnp.int32(3), "c": x > 1}))(jnp.float32(1.5))
    assert list(packed.read().items()) == [("b", 1.5), ("a", 3.0), ("c", 1.0)]
