"""How fast the steps of a run are: what `perf/*` of metrics.jsonl says, by the formulas of `podium plan`."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import jax
from jax.sharding import Mesh

from podium.config.accelerators import chip_of

# Which JAX reports when it has compiled a program, or loaded one that was compiled before.
_COMPILED = "/jax/core/compile/backend_compile_duration"


# (steps done with this one, seconds that it took) -> its numbers by name
Speed = Callable[[int, float], dict[str, float]]


@dataclass(frozen=True)
class StepWork:
    """What one step does on all chips: useful operations (`podium.rlhf.work`), and tokens, padding too."""

    useful: float
    tokens: int


def speed_of(mesh: Mesh, dtype: str, work: Callable[[int], StepWork]) -> Speed:
    """Return what gives the numbers of a step that computes in `dtype`; `work(index)` is of a step's number, from 0.

    MFU is left out where the peak of the chips is not known, as of CPUs.
    """
    chips, chip = mesh.size, chip_of(mesh.devices.flat[0].device_kind)

    def numbers(done: int, seconds: float) -> dict[str, float]:
        step = work(done - 1)
        found = {
            "perf/step_seconds": seconds,
            "perf/tokens_per_second_per_chip": step.tokens / (seconds * chips),
        }
        if chip is not None:
            found["perf/mfu"] = chip.utilisation(step.useful, seconds, chips=chips, dtype=dtype)
        return found

    return numbers


class SteadyClock:
    """Times calls of steps, one after the other, but for those beside which more was done than their work.

    These are the first, and any during which a program was compiled, loaded, or `pause` was called.
    """

    def __init__(self) -> None:
        self._last: float | None = None

    def __enter__(self) -> "SteadyClock":
        jax.monitoring.register_event_duration_secs_listener(self._heard)
        return self

    def __exit__(self, *_: object) -> None:
        jax.monitoring.unregister_event_duration_listener(self._heard)

    def tick(self) -> float | None:
        """Note that a call has ended; return the seconds since the one before ended, None where they do not count."""
        last, self._last = self._last, time.monotonic()
        return None if last is None else self._last - last

    def pause(self) -> None:
        """Leave out the time until the next call ends."""
        self._last = None

    def _heard(self, event: str, *_: object, **__: object) -> None:
        if event == _COMPILED:
            self.pause()
