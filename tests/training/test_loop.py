"""podium.training.loop: what a step reports arrives whole, in order, and before a checkpoint that relies on it."""

import asyncio
import errno
import itertools
import signal
import threading
import time
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from podium.config.training import TrainingConfig
from podium.errors import Stopped, UserError
from podium.parallel.mesh import make_mesh
from podium.training.calls import repeated, steps_per_call
from podium.training.loop import Monitor, TrainingRun, run_loop
from podium.training.metrics import read_metrics, without_clock
from podium.training.scalars import Scalars, reporting
from support.events import event_steps
from support.s3_server import S3Server


def count(state, *_):
    return {"count": state["count"] + 1}, {"loss": state["count"] / 4.0, "rows": state["count"].astype(jnp.int32)}


def run(folder, *, total=5, per_call=1, calls=None, **options):
    """Count up from 0 and report the count; returns it. The ranges that were called go to `calls`."""
    compiled = jax.jit(repeated(reporting(count), per_call))

    def steps(indices, state):
        if calls is not None:
            calls.append(indices)
        return *compiled(state, (), jnp.zeros(per_call), np.int32(len(indices))), None

    monitor = {"shown": {"loss": "loss"}, "known": lambda done: {"episode": done * 16}}
    monitor |= {name: options.pop(name) for name in ("known", "check", "on_restart", "speed") if name in options}
    start = {"count": jnp.float32(0.0)}
    state = run_loop(
        steps, start, settings(folder, **options), Monitor("count", **monitor), total=total, per_call=per_call
    )
    return float(state["count"])


def settings(folder, *, fingerprint="same", checkpoints=None, **rhythm):
    config = TrainingConfig(**({"save_steps": 2, "save_minutes": 60.0, "logging_steps": 1} | rhythm))
    mesh = make_mesh(devices=jax.devices()[:1])
    return TrainingRun(config, 0, mesh, folder, checkpoints or str(folder / "checkpoints"), fingerprint)


def test_a_line_holds_the_numbers_of_its_step_and_what_was_known_of_it(tmp_path):
    run(tmp_path)
    rows = [without_clock(row) for row in read_metrics(tmp_path)]
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


@pytest.mark.parametrize("per_call", [2, 3, 8])
def test_several_steps_of_a_call_are_reported_as_single_ones(tmp_path, per_call):
    assert run(tmp_path / "single") == run(tmp_path / "several", per_call=per_call) == 5
    single, several = (read_metrics(tmp_path / name) for name in ("single", "several"))
    assert [without_clock(row) for row in several] == [without_clock(row) for row in single]
    assert event_steps(tmp_path / "several") == [1, 2, 3, 4, 5]


def test_steps_of_a_call_share_its_time(tmp_path, monkeypatch):
    """One line after the other would say that all but the first took no time."""
    clock = itertools.count(100.0, 12.0)
    monkeypatch.setattr(
        "podium.training.loop.time", SimpleNamespace(time=lambda: next(clock), monotonic=time.monotonic)
    )
    run(tmp_path, total=7, per_call=4, save_steps=100)
    # The loop begins at 100; calls of 4 and 3 steps are heard of at 112 and 124.
    assert [row["time"] for row in read_metrics(tmp_path)] == [103, 106, 109, 112, 116, 120, 124]


def test_speed_is_of_steady_calls(tmp_path, monkeypatch):
    """Not of the first, which is compiled, nor of the one that a checkpoint was saved before. Two steps share 12 s."""
    clock = itertools.count(100.0, 12.0)
    monkeypatch.setattr("podium.training.speed.time", SimpleNamespace(monotonic=lambda: next(clock)))
    run(tmp_path, total=12, per_call=2, save_steps=6, speed=lambda done, seconds: {"perf/step_seconds": seconds + done})
    timed = {row["step"]: row.get("perf/step_seconds") for row in read_metrics(tmp_path)}
    assert timed == {step: 6.0 + step if step in (3, 4, 5, 6, 9, 10, 11, 12) else None for step in range(1, 13)}


def test_a_call_ends_where_a_checkpoint_is_due(tmp_path):
    """Also where a run goes on from a checkpoint of another rhythm."""

    def stop(done, _):
        if done == 7:
            raise UserError("stop")

    calls = []
    with pytest.raises(UserError, match="stop"):
        run(tmp_path, total=12, per_call=4, save_steps=6, calls=calls, check=stop)
    assert calls == [range(0, 4), range(4, 6), range(6, 10), range(10, 12)]
    resumed = []
    assert run(tmp_path, total=12, per_call=4, save_steps=5, calls=resumed) == 12
    assert resumed == [range(6, 10), range(10, 12)]


def checkpoints_of(folder):
    return sorted(int(path.name) for path in (folder / "checkpoints").iterdir())


def test_a_checkpoint_is_due_by_steps_or_by_minutes(tmp_path, monkeypatch):
    """Four minutes to a call: the third ends twelve minutes after the start, though only six steps are done."""
    saved, minutes = [], itertools.count(0.0, 4.0)
    clock = SimpleNamespace(time=time.time, monotonic=lambda: 60 * next(minutes))
    monkeypatch.setattr("podium.training.loop.time", clock)
    monkeypatch.setattr("podium.training.loop.Checkpoints.save", lambda self, step, *_: saved.append(step))
    run(tmp_path, total=16, per_call=2, save_steps=12, save_minutes=11.0)
    # Asked once a call, and once more after a save.
    assert saved == [6, 12]


def test_steps_run_while_a_checkpoint_is_written_and_the_last_one_is_waited_for(tmp_path, monkeypatch):
    """The first write goes on until the next step has been reported, the second until after the last one."""
    write, reported, seen = ocp.JsonCheckpointHandler._save_fn, threading.Event(), []

    async def slowly(self, *arguments):
        seen.append(await asyncio.to_thread(reported.wait, 20))
        await asyncio.sleep(0.5)
        await write(self, *arguments)

    monkeypatch.setattr(ocp.JsonCheckpointHandler, "_save_fn", slowly)
    assert run(tmp_path, total=5, check=lambda done, _: done == 3 and reported.set()) == 5
    assert seen == [True, True]
    assert checkpoints_of(tmp_path) == [2, 4]


def fill_disk(monkeypatch, *, after=0.0):
    async def fail(*_):
        await asyncio.sleep(after)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(ocp.JsonCheckpointHandler, "_save_fn", fail)


@pytest.mark.parametrize(("total", "save_steps", "after"), [(3, 2, 0.5), (100, 50, 0.0)])
def test_a_checkpoint_that_cannot_be_written_ends_the_run_soon(tmp_path, monkeypatch, total, save_steps, after):
    """Before the next checkpoint is due; at the end of a run, too."""
    fill_disk(monkeypatch, after=after)
    calls = []

    def check(done, _):
        time.sleep(0.2 * (done > save_steps))

    with pytest.raises(UserError, match=f"no room for the checkpoint of step {save_steps} .* there is no earlier one"):
        run(tmp_path, total=total, save_steps=save_steps, calls=calls, check=check)
    assert len(calls) < 100
    assert not list((tmp_path / "checkpoints").iterdir())


def test_a_stopped_run_does_not_say_that_it_was_saved_where_it_was_not(tmp_path, monkeypatch):
    fill_disk(monkeypatch)

    def check(done, _):
        if done == 1:
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(UserError, match="no room for the checkpoint of step 2"):
        run(tmp_path, save_steps=100, check=check)


def test_a_run_in_a_store_goes_on_on_another_machine(tmp_path, monkeypatch):
    """Nothing is left of the first one's disk."""

    def stop(done, _):
        if done == 4:
            raise UserError("stop")

    with S3Server() as server:
        server.use(monkeypatch)
        with pytest.raises(UserError, match="stop"):
            run(tmp_path / "first", check=stop, checkpoints="s3://runs/policy/.work/checkpoints")
        calls = []
        assert run(tmp_path / "second", calls=calls, checkpoints="s3://runs/policy/.work/checkpoints") == 5
    assert calls == [range(2, 3), range(3, 4), range(4, 5)]
    assert run(tmp_path / "whole") == 5
    metrics = [[row | {"time": 0} for row in read_metrics(tmp_path / name)] for name in ("second", "whole")]
    assert metrics[0] == metrics[1]
    assert event_steps(tmp_path / "second") == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("at", [1, 6, 12])
def test_a_signal_ends_the_run_after_the_running_call_and_saves(tmp_path, number, at):
    """The one that comes while the numbers of the last call are read, too: no step is made twice."""

    def check(done, _):
        if done == at:
            signal.raise_signal(number)

    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert run(whole, total=12, per_call=2, save_steps=100) == 12
    before = signal.getsignal(number)
    with pytest.raises(Stopped) as caught:
        run(stopped, total=12, per_call=2, save_steps=100, check=check)
    assert signal.getsignal(number) is before
    reached = {1: 4, 6: 8, 12: 12}[at]  # the next call was running already
    assert str(caught.value) == f"count: stopped after step {reached} of 12, which is saved; start it again to go on"
    assert checkpoints_of(stopped) == [reached]
    calls = []
    assert run(stopped, total=12, per_call=2, save_steps=100, calls=calls) == 12
    assert calls == [range(step, step + 2) for step in range(reached, 12, 2)]
    numbers = [[without_clock(row) for row in read_metrics(folder)] for folder in (whole, stopped)]
    assert numbers[0] == numbers[1]
    assert event_steps(stopped) == list(range(1, 13))


def test_a_second_signal_ends_the_run_at_once(tmp_path):
    def check(done, _):
        if done == 2:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, total=12, save_steps=100, check=check)
    assert checkpoints_of(tmp_path) == []


def test_before_the_first_call_is_compiled_a_signal_does_what_it_always_did(tmp_path):
    def steps(indices, state):
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("the signal was only noted")

    with pytest.raises(KeyboardInterrupt):
        run_loop(steps, {"count": jnp.float32(0.0)}, settings(tmp_path), Monitor("count", {}), total=3)


def test_a_step_gone_wrong_ends_the_run_though_its_call_went_on(tmp_path):
    """What came after it in the call is not reported, and not saved."""

    def diverge(state, *_):
        return {"count": state["count"] + 1}, {"loss": jnp.where(state["count"] == 3, jnp.nan, 1.0)}

    compiled = jax.jit(repeated(reporting(diverge), 4))
    with pytest.raises(UserError, match="loss is not finite after step 4; the checkpoint of step 2 is intact"):
        run_loop(
            lambda indices, state: (*compiled(state, (), jnp.zeros(4), np.int32(len(indices))), None),
            {"count": jnp.float32(0.0)},
            settings(tmp_path),
            Monitor("count", {}),
            total=8,
            per_call=4,
        )
    assert [row["step"] for row in read_metrics(tmp_path)] == [1, 2, 3, 4]


@pytest.mark.parametrize("most", [1, 4])
def test_repeated_steps_are_those_of_a_loop(most):
    """Each takes its own batch; beyond the count the batches are not read; all counts are one program."""

    def step(state, fixed, batch):
        state = 0.5 * state + fixed * jnp.sum(batch["x"])
        return state, {"state": state, "rows": batch["x"] + state}

    program = jax.jit(repeated(step, most))
    x = np.random.default_rng(0).normal(size=(most, 3)).astype(np.float32)
    for count in range(1, most + 1):
        given = np.where(np.arange(most)[:, None] < count, x, np.nan)
        state, told = program(jnp.float32(1.0), jnp.float32(3.0), {"x": given}, np.int32(count))
        expected, rows = np.float64(1.0), []
        for batch in x[:count].astype(np.float64):
            expected = 0.5 * expected + 3.0 * batch.sum()
            rows.append(batch + expected)
        np.testing.assert_allclose(state, expected, rtol=1e-6)
        np.testing.assert_allclose(told["rows"][:count], rows, rtol=1e-5)
        assert not np.any(told["rows"][count:])
    assert program._cache_size() == 1


def test_small_steps_share_a_call_and_large_ones_do_not():
    assert [steps_per_call(operations) for operations in (1.0, 5e9, 2e10, 5e10, 1e15)] == [8, 8, 2, 1, 1]


def test_scalars_keep_names_and_order_through_a_program():
    packed = jax.jit(lambda x: Scalars.pack({"b": x, "a": jnp.int32(3), "c": x > 1}))(jnp.float32(1.5))
    (numbers,) = packed.read()
    assert list(numbers.items()) == [("b", 1.5), ("a", 3.0), ("c", 1.0)]
