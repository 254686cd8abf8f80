"""podium.training.speed: seconds of steady calls, and what follows from them."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest

from podium.config.accelerators import ACCELERATORS, chip_of
from podium.parallel.mesh import make_mesh
from podium.training.speed import SteadyClock, StepWork, speed_of


def mesh_of(kind, chips):
    return SimpleNamespace(size=chips, devices=np.array([SimpleNamespace(device_kind=kind)] * chips, dtype=object))


@pytest.mark.parametrize(("dtype", "peak"), [("bfloat16", 989e12), ("float32", 494e12)])
def test_mfu_is_of_useful_operations_over_time_chips_and_peak(dtype, peak):
    """Two steps done: the second's work, on 4 chips in 0.5 s."""
    work = [StepWork(1e9, 10), StepWork(3e14, 512)]
    numbers = speed_of(mesh_of("NVIDIA H100 80GB HBM3", 4), dtype, lambda index: work[index])(2, 0.5)
    assert numbers == {
        "perf/step_seconds": 0.5,
        "perf/tokens_per_second_per_chip": 512 / 0.5 / 4,
        "perf/mfu": pytest.approx(3e14 / (0.5 * 4 * peak)),
    }


def test_without_a_known_peak_there_is_no_mfu():
    numbers = speed_of(make_mesh(devices=jax.devices()[:1]), "float32", lambda _: StepWork(1e9, 10))(1, 0.5)
    assert numbers == {"perf/step_seconds": 0.5, "perf/tokens_per_second_per_chip": 20.0}


def test_chips_are_found_by_what_jax_calls_them():
    assert chip_of("TPU v5 lite") is chip_of("TPU v5e") is ACCELERATORS["v5e"].chip
    assert chip_of("TPU v5") is ACCELERATORS["v5p"].chip
    assert chip_of("NVIDIA H100 80GB HBM3 MIG 1g.10gb") is None


def test_calls_are_timed_but_for_the_first_and_what_was_beside_a_pause_or_a_compilation(monkeypatch):
    now = iter([100.0, 102.0, 105.0, 200.0, 204.0, 300.0, 309.0])
    monkeypatch.setattr("podium.training.speed.time", SimpleNamespace(monotonic=lambda: next(now)))
    with SteadyClock() as clock:
        assert [clock.tick(), clock.tick(), clock.tick()] == [None, 2.0, 3.0]
        clock.pause()
        assert [clock.tick(), clock.tick()] == [None, 4.0]
        jax.jit(lambda x: x + 1)(np.float32(0))
        assert [clock.tick(), clock.tick()] == [None, 9.0]
