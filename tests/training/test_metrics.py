"""podium.training.metrics: lines, event files, resuming, unfinished lines, numbers that JSON lacks."""

import json

import jax.numpy as jnp
import pytest

from podium.training.metrics import MetricsWriter, read_metrics
from support.events import event_steps, events


def write(folder, steps, **options):
    with MetricsWriter(folder, clock=lambda: 1000.5, **options) as writer:
        for step in steps:
            writer.write(step, {"loss": step / 4})


def test_a_line_holds_step_time_and_plain_numbers(tmp_path):
    with MetricsWriter(tmp_path, clock=lambda: 1000.5) as writer:
        numbers = writer.write(3, {"loss": jnp.float32(0.25), "val/ratio": jnp.asarray(1.5, jnp.bfloat16), "lr": 1e-5})
        line = (tmp_path / "metrics.jsonl").read_text()
    assert json.loads(line) == {"step": 3, "time": 1000.5, "loss": 0.25, "val/ratio": 1.5, "lr": 1e-5}
    assert numbers == {"loss": 0.25, "val/ratio": 1.5, "lr": 1e-5}
    scalars = {v.tag: (e.step, v.simple_value) for e in events(tmp_path) for v in e.summary.value}
    assert scalars["loss"] == (3, 0.25)
    assert scalars["val/ratio"] == (3, 1.5)


def test_a_new_run_removes_the_numbers_of_the_old(tmp_path):
    write(tmp_path, [1, 2, 3])
    (tmp_path / "tensorboard" / "events.out.tfevents.1000000000.host").touch()
    write(tmp_path, [1])
    assert len(list((tmp_path / "tensorboard").iterdir())) == 1
    assert [row["step"] for row in read_metrics(tmp_path)] == [1]
    assert event_steps(tmp_path) == [1]


def test_a_resumed_run_repeats_no_step(tmp_path):
    write(tmp_path, [1, 2, 3, 4, 5])
    write(tmp_path, [4, 5, 6], resume_step=3)
    assert [row["step"] for row in read_metrics(tmp_path)] == [1, 2, 3, 4, 5, 6]
    # TensorBoard drops what lies at or behind the step of a START record.
    assert event_steps(tmp_path) == [1, 2, 3, 4, 5, 4, 5, 6]
    assert [event.step for event in events(tmp_path) if event.HasField("session_log")] == [4]


def test_resuming_before_the_first_line_was_written_starts_an_empty_file(tmp_path):
    write(tmp_path, [3], resume_step=2)
    assert [row["step"] for row in read_metrics(tmp_path)] == [3]


def test_a_line_cut_by_a_kill_is_dropped(tmp_path):
    write(tmp_path, [1, 2])
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "ti')
    assert [row["step"] for row in read_metrics(tmp_path)] == [1, 2]
    write(tmp_path, [3], resume_step=2)
    assert [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == [1, 2, 3]


def test_events_reach_the_disk_once_a_second_and_lines_at_once(tmp_path):
    now = [10.0]
    with MetricsWriter(tmp_path, clock=lambda: now[0]) as writer:
        seen = []
        for step, now[0] in enumerate([10.0, 10.5, 11.0, 11.9], start=1):
            writer.write(step, {"loss": 0.5})
            seen.append((event_steps(tmp_path), len(read_metrics(tmp_path))))
        assert seen == [([1], 1), ([1], 2), ([1, 2, 3], 3), ([1, 2, 3], 4)]
        writer.flush()
        assert event_steps(tmp_path) == [1, 2, 3, 4]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_number_that_json_lacks_is_null(tmp_path, value):
    with MetricsWriter(tmp_path, clock=lambda: 1.0) as writer:
        returned = writer.write(1, {"loss": value})
    assert read_metrics(tmp_path) == [{"step": 1, "time": 1.0, "loss": None}]
    assert str(returned["loss"]) == str(value)
