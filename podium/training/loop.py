"""The one loop of every training phase, in a fixed order.

A call of one step, or of several, is dispatched before the numbers of the one before it are read, so that the device
never waits for the host. Then those numbers are checked: a state is saved only after its own numbers were found good.
Its bytes are written while the next steps run. Do not reorder.
"""

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import jax
from jax.sharding import Mesh

from podium.config.training import TrainingConfig
from podium.errors import Stopped, UserError
from podium.parallel import distributed
from podium.parallel.step_clock import StepClock
from podium.storage import remote
from podium.training.checkpoint import Checkpoints
from podium.training.metrics import METRICS_FILE, MetricsWriter
from podium.training.profiling import Profile, Profiler
from podium.training.progress import Progress
from podium.training.scalars import Scalars
from podium.training.speed import Speed, SteadyClock
from podium.training.stopping import StopSignals

State = TypeVar("State")
# (indices of the steps, state) -> (new state, their numbers, what to do with the other output, or None: it is given a
# step's place in the call and its number)
StepsFn = Callable[[range, State], tuple[State, Scalars, Callable[[int, int], None] | None]]
KEPT_CHECKPOINTS = 2


@dataclass(frozen=True)
class TrainingRun:
    """Where and for what a training phase runs.

    Attributes:
        config: Its section of the configuration.
        seed: Of every random stream.
        mesh: The devices that it runs on.
        folder: Metrics go there.
        checkpoints: Folder or URI.
        fingerprint: Of configuration and inputs; a checkpoint must carry the same.
        step_timeout: Seconds that a call of steps may take with several processes; None: ten times the median.
        profile: Steps to trace with JAX's profiler.
    """

    config: TrainingConfig
    seed: int
    mesh: Mesh
    folder: Path
    checkpoints: str
    fingerprint: str
    step_timeout: float | None = field(default=None, kw_only=True)
    profile: Profile | None = field(default=None, kw_only=True)

    @property
    def records(self) -> list[Path]:
        """Files that grow with the steps. Checkpoints in a store carry them: another machine has none of them."""
        return [self.folder / METRICS_FILE]


@dataclass(frozen=True)
class Monitor:
    """What is made of the numbers of a step; steps count from 1 where they are done.

    Attributes:
        label: Name of the phase in messages.
        shown: Metrics that progress shows, by their short names there.
        known: Gives more numbers of a step.
        check: May raise UserError for a step's numbers, to end the run; one that is not finite ends it anyway.
        on_restart: Is given how many steps are kept before the first.
        speed: Gives the numbers that are of the clock, `perf/*`, of a step done and the seconds that it took.
    """

    label: str
    shown: Mapping[str, str]
    known: Callable[[int], Mapping[str, float]] = lambda _: {}
    check: Callable[[int, Mapping[str, float]], None] = lambda done, numbers: None
    on_restart: Callable[[int], None] = lambda kept: None
    speed: Speed = lambda done, seconds: {}


def run_loop(
    steps: StepsFn[State], state: State, run: TrainingRun, monitor: Monitor, *, total: int, per_call: int = 1
) -> State:
    """Run steps 0 .. total - 1 from `state`, or from the last checkpoint.

    `steps(indices, state)` runs up to `per_call` of them; the times of their metrics are spread evenly over the call.
    A checkpoint is made every `save_steps` steps and when `save_minutes` have gone since the last; neither changes a
    result. Checkpoints of good steps stay.

    Raises:
        Stopped: SIGTERM or SIGINT came and the running call was saved; before the first, there is nothing to save.
    """
    config, label = run.config, monitor.label
    with Checkpoints(run.checkpoints, keep=KEPT_CHECKPOINTS) as saved:
        restored = _restore(saved, state, run)
        start, state = restored or (0, state)
        monitor.on_restart(start)
        resume_step = start if restored else None
        writer, progress = MetricsWriter(run.folder, resume_step=resume_step), Progress(total, label, done=start)
        clock, steady, profiler = StepClock(run.step_timeout), SteadyClock(), Profiler(run.profile)
        with writer, progress, StopSignals() as signals, clock, steady, profiler:
            rhythm = total, config.logging_steps
            reporter = _Reporter(writer, progress, saved, monitor, clock, steady, *rhythm, time.time())
            pending, saved_at = None, time.monotonic()
            for call, indices in enumerate(_calls(start, total, per_call, config.save_steps)):
                profiler.before(indices)
                state, scalars, after = steps(indices, state)
                signals.listen()
                progress.wait("first step")
                if pending is not None:
                    reporter.report(*pending)
                    profiler.after(indices.start)
                saved.check()
                pending, done = (indices, scalars, after), indices.stop
                due = done % config.save_steps == 0
                # The clock is process 0's: two that disagree would wait for each other.
                due |= distributed.decided(time.monotonic() - saved_at >= 60 * config.save_minutes)
                stop = signals.asked or distributed.asked_to_stop(call)
                if done < total and not (due or stop):
                    continue
                reporter.report(*pending)
                pending, stop = None, stop or signals.asked
                if stop or done < total:
                    writer.flush()  # a run that goes on from here must find the numbers that led to it
                    clock.pause()
                    steady.pause()
                    saved.save(done, state, {"fingerprint": run.fingerprint, "records": _records(run)})
                    saved_at = time.monotonic()
                if stop:
                    saved.wait()
                    raise Stopped(label, done, total)
    return state


@dataclass
class _Reporter:
    """Reports the steps of a call one by one, and ends the run at a bad one.

    last_read: when the numbers of the call before arrived, seconds since 1970.
    """

    writer: MetricsWriter
    progress: Progress
    saved: Checkpoints
    monitor: Monitor
    clock: StepClock
    steady: SteadyClock
    total: int
    logging_steps: int
    last_read: float

    def report(self, indices: range, scalars: Scalars, after: Callable[[int, int], None] | None) -> None:
        """Wait for the call and report its steps."""
        rows, before, self.last_read = scalars.read(), self.last_read, time.time()
        self.clock.tick()
        seconds = self.steady.tick()
        for place, index in enumerate(indices):
            done = index + 1
            logged = done % self.logging_steps == 0 or done == self.total
            numbers = {**rows[place], **self.monitor.known(done)}
            if logged:
                speed = {} if seconds is None else self.monitor.speed(done, seconds / len(indices))
                at = before + (self.last_read - before) * (place + 1) / len(indices)
                self.writer.write(done, {**numbers, **speed}, at)
            _require_finite(done, numbers, self.monitor.label, self.saved)
            self.monitor.check(done, numbers)
            if logged and after is not None:
                after(place, done)
        # Once for the call: steps that end together say nothing about the pace.
        self.progress.update(indices.stop, **{short: numbers[name] for short, name in self.monitor.shown.items()})


def fingerprint(*parts: Any) -> str:
    """Digest of JSON-able parts: equal configurations and inputs, equal digest."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def _calls(start: int, total: int, per_call: int, save_steps: int) -> Iterator[range]:
    """Divide the steps into calls; a call ends where a checkpoint is due."""
    while start < total:
        stop = min(start + per_call, (start // save_steps + 1) * save_steps, total)
        yield range(start, stop)
        start = stop


def _records(run: TrainingRun) -> dict[str, str]:
    """Give the contents of a run's records, by name, where they do not lie beside its checkpoints."""
    if not remote.is_remote(run.checkpoints):
        return {}
    return {path.name: path.read_text(encoding="utf-8") for path in run.records if path.exists()}


def _restore(checkpoints: Checkpoints, state: State, run: TrainingRun) -> tuple[int, State] | None:
    if not checkpoints.steps:
        return None
    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)
    restored = checkpoints.restore_latest(abstract)
    if restored is None or restored.extra.get("fingerprint") != run.fingerprint:
        raise UserError(
            f"{checkpoints.folder}: its checkpoints belong to another configuration or other data; "
            "use the configuration they were made with, write resume: never, or choose another output folder"
        )
    for path in run.records:
        if not path.exists() and (content := restored.extra.get("records", {}).get(path.name)) is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content, encoding="utf-8")
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
