"""Several processes with rows of their own train as one does: each holds some of the devices, the first one writes.

Whole stages, and weights that are cut, are in tests/parallel/test_processes.py.
"""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from podium.training.metrics import read_metrics, without_clock

TESTS = Path(__file__).resolve().parents[1]


def run(folder: Path, processes: int) -> None:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    env = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(TESTS), *filter(None, sys.path)]),
        "JAX_NUM_CPU_DEVICES": str(2 // processes),
    }
    program = [sys.executable, TESTS / "support" / "ppo_process.py"]
    started = [
        subprocess.Popen(
            [*program, str(index), str(processes), str(port), folder],
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for index in range(processes)
    ]
    try:
        for process in started:
            output, _ = process.communicate(timeout=600)
            assert process.returncode == 0, output.decode(errors="replace")[-4000:]
    finally:
        for process in started:
            process.kill()


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    one, two = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("two")
    run(one, 1)
    run(two, 2)
    return one, two


def test_two_processes_report_what_one_does(folders: tuple[Path, Path]) -> None:
    one, two = (read_metrics(folder) for folder in folders)
    assert [row["step"] for row in one] == [row["step"] for row in two] == list(range(1, 12))
    for first, second in zip(one, two, strict=True):
        assert without_clock(second) == pytest.approx(without_clock(first), rel=1e-4, abs=1e-5)


def test_the_first_process_keeps_rows_that_others_hold(folders: tuple[Path, Path]) -> None:
    """All of a batch of four: the second half is another process's."""
    one, two = ((folder / "rollouts.jsonl").read_text().splitlines() for folder in folders)
    assert len(one) == len(two) == 11 * 4
    for first, second in zip(map(json.loads, one), map(json.loads, two), strict=True):
        inexact = {name: pytest.approx(first[name], rel=1e-4, abs=1e-5) for name in ("score", "kl")}
        assert second == first | inexact


def test_a_program_that_differs_is_named_before_it_runs(folders: tuple[Path, Path]) -> None:
    """By a constant; in a run of one process there is nothing to compare."""
    one, two = (folder / "differs.txt" for folder in folders)
    assert not one.exists()
    said = two.read_text()
    assert said.startswith("process 1 (") and "process 0" in said and "its program of the sums is another one" in said


def test_two_processes_save_one_checkpoint(folders: tuple[Path, Path]) -> None:
    assert (folders[1] / "checkpoints" / "10").is_dir()
