"""A PPO step compiles for 16 chips that are not there, with the kernels and without the arrays that would not fit.

Each in a process of its own: the compiler for TPUs is set up before JAX starts. Two layers, because layers are scanned.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "tpu_compile.py"
GIB = 2**30
# A fifth of the compiler's time: it looks less for fast schedules, and the arrays of the program stay what they are.
QUICK = {"JAX_EXEC_TIME_OPTIMIZATION_EFFORT": "-1.0", "JAX_MEMORY_FITTING_EFFORT": "-1.0"}


def compiled(tmp_path: Path, *options: str) -> dict:
    figures = tmp_path / "figures.json"
    command = [sys.executable, SCRIPT, "--layers", "2", "--json", figures, *options]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | QUICK)
    assert figures.exists(), done.stdout + done.stderr
    assert "Involuntary full rematerialization" not in done.stderr, "a sharding is wrong"
    return json.loads(figures.read_text())


@pytest.mark.parametrize("shape", ["llama-2-7b-lora", "llama-3.2-1b"])
def test_a_step_compiles_for_a_slice_without_arrays_that_do_not_fit(tmp_path: Path, shape: str) -> None:
    figures = compiled(tmp_path, "--shape", shape)
    assert figures["too_large"] == []
    assert figures["peak_bytes"] < 16 * GIB, "a chip of v5e has 16 GiB"
