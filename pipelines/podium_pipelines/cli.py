"""The verbs that `podium_pipelines` adds to the `podium` command.

Nothing here imports kfp or the config when it is registered: `podium --help` must stay fast.
"""

import os
import signal
import stat
import sys
import time
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from podium.errors import ExitCode, UserError, file_error, path_argument
from podium_pipelines import remote_cli
from podium_pipelines.arguments import (
    AllowFailedGates,
    ConfigFile,
    Overrides,
    Target,
    read_config,
    require,
    require_stages,
    target_name,
    with_gates,
)
from podium_pipelines.multihost import cli as multihost_cli


class Runner(StrEnum):
    """How a local run starts a stage."""

    process = "process"
    docker = "docker"


def register(app: typer.Typer) -> None:
    """Add this package's commands to the `podium` application."""
    app.command("run")(run)
    app.command("compile")(compile_)
    remote_cli.register(app)
    multihost_cli.register(app)


def run(
    config: ConfigFile,
    overrides: Overrides = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            parser=path_argument("--out", "a folder"),
            help="Folder of the run; the same folder continues it. [default: runs/FOLDER-CONFIG]",
        ),
    ] = None,
    runner: Annotated[
        Runner, typer.Option(help="process: in this environment; docker: each stage in its container.")
    ] = Runner.process,
    redo: Annotated[
        bool, typer.Option("--redo", help="Replace results that changes make outdated; no DIR.N is kept.")
    ] = False,
    allow_failed_gates: AllowFailedGates = False,
) -> None:
    """Run the whole pipeline on this machine, or go on where an earlier run in the same folder ended.

    Stages whose results are complete are skipped. Where a value, a data file or a model changed since, it is said
    which stages are made again and why, and the earlier run stays whole in DIR.1, DIR.2, ...

    Exits with 3 where the run misses a threshold of evaluation.gates; report and model are complete then too.
    Ctrl-C lets the running step end and saves; a second one ends at once. The same command goes on from there.
    """
    run_here(config, with_gates(overrides, allow_failed_gates), out or default_out(config), runner, redo=redo)


def run_here(
    config: Path,
    overrides: Sequence[str],
    out: Path,
    runner: Runner,
    *,
    redo: bool = False,
    program: Sequence[str] | None = None,
) -> None:
    """Run a config's pipeline and show its results; `program` stands in for the stages in tests.

    Raises:
        typer.Exit: A stage failed (2 where it refused what the user gave, 3 where the run missed a threshold of its
            gates, 75 where it was stopped, else 1), or a signal came (128 + its number).
    """
    from rich.console import Console

    from podium_pipelines.process import Terminated, termination_raises

    console = Console(file=sys.stdout)
    settings = read_config(config, overrides, here=True)
    if runner is Runner.process and program is None:
        require_stages()
    console.print(f"podium run {config} in {out}", markup=False, highlight=False, soft_wrap=True)
    console.file.flush()
    local_run = require("podium_pipelines.run")
    summary = require("podium_pipelines.summary")
    begin, failed = time.monotonic(), False
    try:
        with termination_raises():
            local_run.run_pipeline(settings, out, console, runner=runner.value, redo=redo, program=program)
    except local_run.StageFailed as failure:
        failed = (failure.stage, failure.status) == ("gates", ExitCode.GATES_FAILED)
        if not failed:
            code = _explain(failure.stage, failure.status, failure.signal_name, failure.goes_on)
            raise typer.Exit(code) from failure
    except local_run.StageInterrupted as stop:
        typer.echo(f"Stopped. The same command goes on from {stop.goes_on}.", err=True)
        raise typer.Exit(128 + stop.number) from stop
    except KeyboardInterrupt as interrupt:
        number = interrupt.number if isinstance(interrupt, Terminated) else signal.SIGINT
        typer.echo("\nStopped. The same command goes on from here.", err=True)
        raise typer.Exit(128 + number) from interrupt
    summary.show(summary.read_summary(out.absolute()), console, seconds=time.monotonic() - begin, failed=failed)
    if failed:
        raise typer.Exit(ExitCode.GATES_FAILED)


def compile_(
    config: ConfigFile,
    overrides: Overrides = None,
    target: Annotated[Target | None, typer.Option(help="Where it is to run. [default: platform.target]")] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            parser=path_argument("--output", "a file"),
            help="File to write; without it, standard output.",
        ),
    ] = None,
) -> None:
    """Compile the pipeline to YAML for Kubeflow or Vertex AI."""
    from podium.config import stages_of

    settings = read_config(config, overrides or ())
    goal = target_name(settings, target)
    compiler = require("podium_pipelines.compiler")
    text = compiler.compile_text(settings, goal)
    for path in compiler.local_paths(settings):
        typer.echo(f"Note: {path} is on this machine only; {goal} needs it in a bucket or in the image.", err=True)
    if output is None:
        typer.echo(text, nl=False)
        return
    if _write(output, text):
        typer.echo(f"Wrote {output}: the pipeline for {goal} ({', '.join(stages_of(settings))})")


def _write(output: Path, text: str) -> bool:
    """Write a file as a whole, or what is no plain file (a pipe, a terminal) as it comes; return whether it is a file.

    Raises:
        UserError: It cannot be written.
    """
    from podium.storage.files import write_text

    try:
        if _is_special(output):
            output.write_text(text, encoding="utf-8")
            return False
        # Behind a link: the link itself stays.
        write_text(Path(os.path.realpath(output)), text)
        return True
    except OSError as error:
        name = f"--output {output}"
        raise file_error(error, name) or UserError(f"{name} cannot be written: {error.strerror}") from error


def _is_special(path: Path) -> bool:
    """Tell whether there is something other than a plain file; raise OSError where that cannot be seen."""
    try:
        return not stat.S_ISREG(path.stat().st_mode)
    except FileNotFoundError:
        return False


def default_out(config: Path) -> Path:
    """Return the run folder of a config file: runs/FOLDER-NAME, so that equal names in two folders stay apart."""
    config = config.absolute()
    return Path("runs", f"{config.parent.name}-{config.stem}")


def _explain(stage: str, status: int, signal_name: str | None, goes_on: str) -> int:
    """Return the exit code for a failed stage; speak only where the stage could not say itself why it ended."""
    if signal_name:
        typer.echo(
            f"{stage} was ended by {signal_name}: is there enough memory? The same command goes on from {goes_on}.",
            err=True,
        )
    if status == ExitCode.STOPPED:
        typer.echo(f"The same command goes on from {goes_on}.", err=True)
    return status if status in (ExitCode.USER, ExitCode.STOPPED) else ExitCode.FAULT
