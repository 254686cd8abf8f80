"""Trace a few steps with JAX's profiler: TensorBoard and Perfetto show what each device did, phase by phase."""

import re
from dataclasses import dataclass
from pathlib import Path

import jax

from podium.errors import UserError
from podium.parallel import distributed


@dataclass(frozen=True)
class Profile:
    """Steps to trace, which count from 1, and the folder of the trace. A call of several steps is traced whole."""

    first: int
    count: int
    folder: Path

    @classmethod
    def parse(cls, text: str, folder: Path) -> "Profile":
        """Read STEP:COUNT. Raises UserError for anything else."""
        found = re.fullmatch(r"([1-9]\d*):([1-9]\d*)", text)
        if found is None:
            raise UserError(f"--profile {text!r}: write STEP:COUNT, such as 10:3 for steps 10, 11 and 12")
        return cls(int(found[1]), int(found[2]), folder)


class Profiler:
    """Starts and ends the trace of a run; without a profile it does nothing."""

    def __init__(self, profile: Profile | None) -> None:
        self._profile = profile
        self._running = False

    def __enter__(self) -> "Profiler":
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def before(self, steps: range) -> None:
        """Start before the call that runs these steps, from 0, if the first to trace is among them."""
        if self._profile is not None and self._profile.first - 1 in steps:
            folder = self._profile.folder
            if distributed.count() > 1:
                # On one machine their files would have one name.
                folder /= f"process-{distributed.index()}"
            jax.profiler.start_trace(folder)
            self._running = True

    def after(self, done: int) -> None:
        """End when so many steps are done and the last to trace is among them."""
        if self._profile is not None and done >= self._profile.first + self._profile.count - 1:
            self._stop()

    def _stop(self) -> None:
        if self._running and self._profile is not None:
            self._running = False
            jax.profiler.stop_trace()
            print(f"profile: {self._profile.folder} (tensorboard --logdir {self._profile.folder})", flush=True)
