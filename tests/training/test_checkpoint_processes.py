"""Checkpoints of several processes: each writes its part, any number of them goes on, and one that cannot is named.

With a real store, and four processes: benchmarks/reliability/store.py.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from podium.training.checkpoint import Checkpoints
from support import checkpoint_process
from support.gang import ended, free_port
from support.s3_server import S3Server

DEVICES = 4


def gang(place: str, step: int, *, full: int | None = None) -> list[tuple[int, str]]:
    """Run two processes that share four devices; returns exit code and output of each."""
    port = free_port()
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(DEVICES // 2)}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    started = [
        subprocess.Popen(
            [sys.executable, checkpoint_process.__file__, str(index), "2", str(port), place, str(step)]
            + ["full"] * (index == full),
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for index in range(2)
    ]
    return ended(started, timeout=100)


def test_two_processes_write_into_a_store_and_one_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    place = "s3://runs/policy/.work/checkpoints"
    with S3Server() as store:
        store.use(monkeypatch)
        for code, output in gang(place, 1):
            assert code == 0 and "restored None" in output, output
        written = {name.removeprefix("runs/policy/.work/checkpoints/1/") for name in store.objects}
        # Of the matrix each device wrote its rows; of what all have, one copy was written.
        assert written >= {*(f"rows/c/{device}/0" for device in range(DEVICES)), "whole/c/0/0", "complete.json"}
        assert len([name for name in written if "/c" in name]) == DEVICES + 2
        with Checkpoints(place, keep=2) as checkpoints:
            restored = checkpoints.restore_latest(checkpoint_process.state_of(0))
        assert restored is not None
        assert (restored.step, restored.extra, restored.state["step"]) == (1, {"of": 1}, 1)
        assert checkpoint_process.is_as_saved(restored.state, 1)


def test_a_process_without_room_is_named_by_all_and_the_last_checkpoint_stays(tmp_path: Path) -> None:
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        checkpoints.save(1, checkpoint_process.state_of(1), {"of": 1})
    outcomes = gang(str(tmp_path), 2, full=1)
    assert [code for code, _ in outcomes] == [2, 2], outcomes
    for _, output in outcomes:
        assert "restored (1, {'of': 1}, True)" in output
        assert f"{tmp_path}: no room for the checkpoint of step 2 (1 MB, by process 1 (" in output
        assert "the checkpoint of step 1 is intact" in output
        assert "Traceback" not in output
    assert [path.name for path in tmp_path.iterdir() if path.name.isdigit()] == ["1"]
