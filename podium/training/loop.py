"""The one loop of every training phase, in a fixed order.

A step is dispatched before the numbers of the one before it are read, so that the device never waits for the host.
Then those numbers are judged: a state is saved only after its own numbers were found good. Do not reorder.
"""

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import jax

from podium.errors import UserError
from podium.training.checkpoint import Checkpoints
from podium.training.metrics import MetricsWriter
from podium.training.progress import Progress
from podium.training.scalars import Scalars

State = TypeVar("State")
# (index of the step, state) -> (new state, its numbers, what to do with the step's other output or None)
StepFn = Callable[[int, State], tuple[State, Scalars, Callable[[int], None] | None]]
KEPT_CHECKPOINTS = 2


def run_loop(
    step: StepFn[State],
    state: State,
    *,
    total: int,
    label: str,
    folder: Path,
    checkpoints: str,
    fingerprint: str,
    save_steps: int,
    logging_steps: int,
    shown: Mapping[str, str],
    known: Callable[[int], Mapping[str, float]] = lambda _: {},
    check: Callable[[int, Mapping[str, float]], None] | None = None,
    on_restart: Callable[[int], None] | None = None,
) -> State:
    """Run steps 0 .. total - 1 from `state`, or from the last one in the folder or URI `checkpoints`.

    A checkpoint must carry the same `fingerprint` (of configuration and inputs). Metrics go to `folder`.
    `known(step)` gives more numbers of a step, that no device has to tell; steps count from 1 where they are done.
    `shown` maps short names to the metrics that progress shows. `check(step, numbers)` may raise UserError to end the
    run; a number that is not finite ends it anyway. Checkpoints of good steps stay. `on_restart(steps)` is told how
    many steps are kept before the first one runs.
    """
    with Checkpoints(checkpoints, keep=KEPT_CHECKPOINTS) as saved:
        start = 0
        restored = _restore(saved, state, fingerprint)
        if restored is not None:
            start, state = restored
        if on_restart is not None:
            on_restart(start)
        resume_step = start if restored is not None else None
        with MetricsWriter(folder, resume_step=resume_step) as writer, Progress(total, label, done=start) as progress:

            def settle(done: int, scalars: Scalars, after: Callable[[int], None] | None) -> None:
                logged = done % logging_steps == 0 or done == total
                numbers = {**scalars.read(), **known(done)}
                if logged:
                    writer.write(done, numbers)
                _require_finite(done, numbers, label, saved)
                if check is not None:
                    check(done, numbers)
                if logged and after is not None:
                    after(done)
                progress.update(done, **{short: numbers[name] for short, name in shown.items()})

            pending = None
            for index in range(start, total):
                state, scalars, after = step(index, state)
                if pending is not None:
                    settle(*pending)
                pending = (index + 1, scalars, after)
                if (index + 1) % save_steps == 0 and index + 1 < total:
                    settle(*pending)
                    pending = None
                    writer.flush()  # a run that goes on from here must find the numbers that led to it
                    saved.save(index + 1, state, {"fingerprint": fingerprint})
            if pending is not None:
                settle(*pending)
    return state


def fingerprint(*parts: Any) -> str:
    """Digest of JSON-able parts: equal configurations and inputs, equal digest."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def _restore(checkpoints: Checkpoints, state: State, expected: str) -> tuple[int, State] | None:
    if not checkpoints.steps:
        return None
    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)
    restored = checkpoints.restore_latest(abstract)
    if restored is None or restored.extra.get("fingerprint") != expected:
        raise UserError(
            f"{checkpoints.folder}: its checkpoints belong to another configuration or other data; "
            "use the configuration they were made with, write resume: never, or choose another output folder"
        )
    return restored.step, restored.state


def _require_finite(done: int, numbers: Mapping[str, float], label: str, checkpoints: Checkpoints) -> None:
    wrong = [name for name, value in numbers.items() if not math.isfinite(value)]
    if wrong:
        last = checkpoints.steps[-1] if checkpoints.steps else None
        kept = f"the checkpoint of step {last} is intact" if last is not None else "no checkpoint was made yet"
        raise UserError(
            f"{label}: {wrong[0]} is not finite after step {done}; {kept}. "
            "Lower learning_rate or max_grad_norm, or look for damaged weights"
        )
