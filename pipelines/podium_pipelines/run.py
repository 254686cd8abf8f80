"""Run a config's whole pipeline on this machine."""

import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import yaml
from rich.console import Console

from podium.config import PodiumConfig, edges_of, stages_of
from podium.errors import UserError
from podium.storage.files import write_text
from podium_components import PROGRAM
from podium_pipelines import earlier, workdir
from podium_pipelines.compiler import compile_text, local_paths
from podium_pipelines.kfp_local import run_spec
from podium_pipelines.process import Terminated, run_process

Runner = Literal["process", "docker"]

# How a stage learns what its run is called, for the header of the report; submit gives it too.
RUN_VARIABLE = "RUN"
THIS_PROGRAM = (sys.executable, "-m", "podium")


class StageFailed(Exception):
    """A stage ended with a status other than 0; it has said why itself, unless a signal ended it."""

    def __init__(self, stage: str, status: int, goes_on: str) -> None:
        super().__init__(f"{stage} ended with status {status}")
        self.stage = stage
        self.status = status
        self.goes_on = goes_on

    @property
    def signal_name(self) -> str | None:
        """Name the signal that ended the stage; a container reports it as 128 + its number."""
        number = -self.status if self.status < 0 else self.status - 128
        return signal.Signals(number).name if number in set(signal.Signals) else None


class StageInterrupted(Exception):
    """A signal that came to this process ended it between or in the steps of a stage."""

    def __init__(self, interrupt: KeyboardInterrupt, goes_on: str) -> None:
        super().__init__(goes_on)
        self.number = interrupt.number if isinstance(interrupt, Terminated) else signal.SIGINT
        self.goes_on = goes_on


def run_pipeline(
    config: PodiumConfig,
    out: Path,
    console: Console,
    *,
    runner: Runner = "process",
    redo: bool = False,
    program: Sequence[str] | None = None,
) -> None:
    """Compile the pipeline, run its stages one after another under `out`, and go on where an earlier run ended.

    Where something changed since, say which stages are made again and why; the earlier run stays in OUT.N, unless
    `redo` holds.

    Raises:
        UserError: `out` cannot be used, or the config cannot be compiled.
        StageFailed: A stage failed.
        StageInterrupted: A signal came while a stage ran.
    """
    out = out.absolute()
    spec = compile_text(config, "local")
    with workdir.locked(out) as lock:
        start = (
            _Docker(out, local_paths(config), image_of(spec))
            if runner == "docker"
            else _Process(program or THIS_PROGRAM, lock)
        )
        _put_away(out, config, start.ask, console, redo=redo)
        write_text(out / workdir.CONFIG, yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))
        write_text(out / workdir.PIPELINE, spec)
        tasks = _Tasks(out, console, start, len(stages_of(config)))
        run_spec(out / workdir.PIPELINE, out, out / workdir.KFP_LOG, tasks.run)


def _put_away(out: Path, config: PodiumConfig, ask: earlier.Ask, console: Console, *, redo: bool) -> None:
    """Take out of the run folder what the config makes outdated, after saying so, and keep it."""
    earlier.finish_moving(out)
    result = earlier.outdated(out, config, ask)
    if not result:
        return
    for line in earlier.explain(result, edges_of(config)):
        say(console, line)
    if redo:
        earlier.replace(out, list(result))
    else:
        say(console, f"The earlier run stays in {earlier.keep(out, list(result))}")


def say(console: Console, text: str, style: str | None = None) -> None:
    """Print text as it is, at once: no markup in it, no line broken where a path could be copied."""
    console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)
    console.file.flush()


@dataclass
class _Tasks:
    """Run the containers that KFP asks for, with a line before each; a stage itself says how long it took."""

    out: Path
    console: Console
    start: "_Process | _Docker"
    total: int
    begun: int = 0

    def run(self, image: str, command: Sequence[str], env: Mapping[str, str]) -> None:
        stage = stage_of(command)
        self.begun += 1
        say(self.console, f"[{self.begun}/{self.total}] {stage}", style="bold")
        stopping = f"Stopping: {stage} ends its step and saves, within 2 minutes; Ctrl-C again ends it at once."
        try:
            named = {RUN_VARIABLE: self.out.name, **env}
            status = self.start(image, command, named, lambda: say(self.console, f"\n{stopping}"))
        except KeyboardInterrupt as interrupt:
            raise StageInterrupted(interrupt, workdir.place(self.out, stage)) from interrupt
        if status:
            raise StageFailed(stage, status, workdir.place(self.out, stage))


def stage_of(command: Sequence[str]) -> str:
    """Return the stage of a container command."""
    size = len(PROGRAM)
    if tuple(command[:size]) != PROGRAM or tuple(command[size + 1 : -1]) != ("--executor-input",):
        raise RuntimeError(f"not a stage of Podium: {command[: size + 2]}")
    return command[size]


def image_of(spec: str) -> str:
    """Return the container image of a pipeline's stages, which is one for all."""
    executors = yaml.safe_load(spec)["deploymentSpec"]["executors"]
    return str(next(iter(executors.values()))["container"]["image"])


def _require_success(words: Sequence[str], status: int) -> None:
    if status:
        raise StageFailed(words[0], status, "there")


@dataclass(frozen=True)
class _Process:
    """Start a stage as a process of this environment."""

    program: Sequence[str]
    lock: int

    def __call__(self, image: str, command: Sequence[str], env: Mapping[str, str], stopping: Callable[[], None]) -> int:
        words = [*self.program, *command[len(PROGRAM) :]]
        return run_process(words, env=env, stopping=stopping, keep_open=(self.lock,))

    def ask(self, words: Sequence[str]) -> None:
        """Run another command than a stage."""
        _require_success(words, run_process([*THIS_PROGRAM, *words], env={}, keep_open=(self.lock,)))


@dataclass(frozen=True)
class _Docker:
    """Start a stage in its container, with the run folder and the config's local files at their own paths."""

    out: Path
    reads: Sequence[str]
    image: str
    client: Sequence[str] = field(default=("docker",))

    def __call__(self, image: str, command: Sequence[str], env: Mapping[str, str], stopping: Callable[[], None]) -> int:
        name = self._name(command)
        self._remove(name)
        try:
            words = [*self.client, *self._arguments(name, env), image, *command]
            return run_process(words, env={}, stopping=stopping)
        finally:
            self._remove(name)

    def ask(self, words: Sequence[str]) -> None:
        """Run another command than a stage."""
        _require_success(words, self(self.image, [*PROGRAM, *words], {}, lambda: None))

    def _name(self, command: Sequence[str]) -> str:
        """Return a name that the next run derives too, so that it can remove a container that a kill left behind."""
        return f"podium-{hashlib.sha256(str(self.out).encode()).hexdigest()[:12]}-{command[len(PROGRAM)]}"

    def _arguments(self, name: str, env: Mapping[str, str]) -> list[str]:
        mounts = [f"{self.out}:{self.out}", *(f"{path}:{path}:ro" for path in sorted(set(self.reads)))]
        return [
            # Without --init, a stage that does not listen for SIGTERM would never get it: the first process is spared.
            *("run", "--init", "--rm", "--name", name, "--network", "host", "--user", f"{os.getuid()}:{os.getgid()}"),
            *("--env", "HOME=/tmp", "--env", "PYTHONUNBUFFERED=1"),
            *(part for key, value in env.items() for part in ("--env", f"{key}={value}")),
            *(part for mount in mounts for part in ("--volume", mount)),
        ]

    def _remove(self, name: str) -> None:
        with_force = [*self.client, "rm", "--force", name]
        try:
            subprocess.run(with_force, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        except FileNotFoundError as error:
            raise UserError("--runner docker needs the docker command; install Docker or leave --runner out") from error
