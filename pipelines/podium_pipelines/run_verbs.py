"""The verbs for runs that were submitted earlier: status, cancel, logs, runs, collect."""

import sys
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from podium.errors import ExitCode, UserError, path_argument
from podium_pipelines.arguments import read_config, require

if TYPE_CHECKING:
    from podium.config import PlatformConfig
    from podium_pipelines.remote import Remote, RunState
    from podium_pipelines.run_results import Found

RunName = Annotated[str, typer.Argument(metavar="RUN", help="What podium submit printed: an id, or projects/.../ID.")]
ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        parser=path_argument("--config", "a file"),
        help="Config whose platform section says where the service is. [default: that of the last podium submit]",
    ),
]


def register(app: typer.Typer) -> None:
    """Add the verbs to the `podium` application."""
    for verb in (status, cancel, logs, runs, collect):
        app.command(verb.__name__)(verb)


def status(run: RunName, config: ConfigOption = None) -> None:
    """Say how far a run is, and why a stage failed or does not start.

    Exits with 0 while it runs and when it succeeded, 3 where its gates failed, else 1.
    """
    watch, remotes = require("podium_pipelines.watch"), require("podium_pipelines.remote")
    target = remotes.target_of(run)
    platform, _ = service_of(config, target)
    state: RunState = remotes.connect(platform, target).state(run)
    for line in [*watch.lines(state), *_verdict(state, storage_at(platform, target))]:
        typer.echo(line)
    if state.note:
        typer.echo(f"Note: {state.note}", err=True)
    if state.exit_code:
        raise typer.Exit(state.exit_code)


def _verdict(state: "RunState", storage: str | None) -> list[str]:
    """Return the line of what an ended run found, where it left that and it can be read."""
    found = require("podium_pipelines.run_results").of_runs([state], storage)[0].get(state.name)
    return [f"verdict   {found.verdict}  reward {found.gain}"] if found is not None and found.verdict else []


def cancel(run: RunName, config: ConfigOption = None) -> None:
    """Stop a run."""
    connect(run, config).cancel(run)
    typer.echo(f"Asked to stop {run}")


def logs(
    run: RunName,
    config: ConfigOption = None,
    stage: Annotated[str | None, typer.Option(metavar="STAGE", help="Of this stage alone.")] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Also what the service's own programs print around the stages.")
    ] = False,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as lines come, until the run ends.")] = False,
) -> None:
    """Show what the stages of a run printed."""
    from podium.config import STAGES

    if stage is not None and stage not in STAGES:
        raise UserError(f"--stage {stage}: there is no such stage; write one of {', '.join(STAGES)}")
    wanted = require("podium_pipelines.remote").Wanted(stage, everything, follow)
    some = False
    for line in connect(run, config).logs(run, wanted):
        some = True
        typer.echo(line)
        sys.stdout.flush()
    if not some:
        typer.echo("Note: nothing is printed yet: no stage has started", err=True)


def runs(
    folder: Annotated[
        Path | None,
        typer.Argument(metavar="DIR", parser=path_argument("DIR", "a folder"), help="With --local. [default: runs]"),
    ] = None,
    local: Annotated[bool, typer.Option("--local", help="List the run folders of this machine, below DIR.")] = False,
    config: ConfigOption = None,
    limit: Annotated[int, typer.Option(min=1, max=200, help="How many, from the newest.")] = 20,
) -> None:
    """List runs: their state, and of those that ended the verdict and how much reward they gained."""
    watch = require("podium_pipelines.watch")
    if local:
        found = require("podium_pipelines.local_runs").runs_in(folder or Path("runs"))
        rows, note = [(str(path), state, results) for path, state, results in found[:limit]], ""
    elif folder is not None:
        raise UserError(f"{folder}: a folder has runs of this machine; write podium runs --local {folder}")
    else:
        rows, note = _remote_runs(config, limit)
    for line in watch.listed(rows):
        typer.echo(line)
    if note:
        typer.echo(f"Note: {note}", err=True)


def _remote_runs(config: Path | None, limit: int) -> tuple[list[tuple[str, "RunState", "Found"]], str]:
    """Return the runs of a service with what they found, and what could not be read."""
    remotes, results = require("podium_pipelines.remote"), require("podium_pipelines.run_results")
    platform, target = service_of(config)
    found = remotes.connect(platform, target).runs(limit)
    known, note = results.of_runs([state for _, state in found], storage_at(platform, target))
    return [(run, state, known.get(state.name, results.Found())) for run, state in found], note


def collect(
    run: RunName,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            parser=path_argument("--out", "a folder"),
            help="Where to put it; the same folder goes on. [default: runs/NAME, by the name of the run]",
        ),
    ] = None,
    open_: Annotated[bool, typer.Option("--open", help="Open the report in the browser.")] = False,
    config: ConfigOption = None,
) -> None:
    """Bring report, metrics and model of a run to this machine. Cut off, the same command goes on."""
    collecting, remotes = require("podium_pipelines.collect"), require("podium_pipelines.remote")
    target = remotes.target_of(run)
    platform, _ = service_of(config, target)
    storage = storage_at(platform, target)
    if storage is None:
        key = "vertex.staging_bucket" if target == "vertex" else "kubeflow.storage"
        raise UserError(f"platform.{key} is not set: the results of {run} are in the service's own store, on its page")
    remote: Remote = remotes.connect(platform, target)
    state = remote.state(run)
    left = collecting.Left(run, state.name, storage, remote.artifacts(run))
    got = collecting.collect(left, out or Path("runs", state.name), typer.echo)
    if summary := got.results.get("summary"):
        typer.echo(f"{summary['verdict']:<8}{summary['headline']}")
    named = {"Report": got.report, "Model": got.model, "Card": got.model and got.model / collecting.CARD}
    for what, path in (named | {"Metrics": got.metrics}).items():
        typer.echo(f"{what:<8}{path or 'none'}")
    if state.state != "succeeded":
        typer.echo(f"Note: the run is {state.state}; podium status {run} says more", err=True)
    if open_ and got.report is not None:
        webbrowser.open(got.report.absolute().as_uri())


def connect(run: str, config: Path | None) -> "Remote":
    """Return the client for a run that was submitted earlier.

    Raises:
        UserError: The config cannot be read, or the service cannot be reached.
    """
    remotes = require("podium_pipelines.remote")
    target = remotes.target_of(run)
    remote: Remote = remotes.connect(service_of(config, target)[0], target)
    return remote


def service_of(config: Path | None, target: str | None = None) -> tuple["PlatformConfig", str]:
    """Return where the service is: as a config says, else as at the last submit, else where its client looks by itself.

    Raises:
        UserError: The config cannot be read, or names no cluster and no target is given.
    """
    from podium.config import PlatformConfig

    if config is not None:
        platform = read_config(config, ()).platform
        if target is None and platform.target == "local":
            raise UserError(f"{config}: platform.target is local; podium runs --local lists the runs of this machine")
        return platform, target or platform.target
    known: tuple[PlatformConfig, str] | None = require("podium_pipelines.remembered").recall(target)
    return known or (PlatformConfig(), target or "kubeflow")


def storage_at(platform: "PlatformConfig", target: str) -> str | None:
    """Return where the runs of a service keep their artifacts; None where nothing says it."""
    return platform.vertex.staging_bucket if target == "vertex" else platform.kubeflow.storage


def finish(remote: "Remote", run: str, storage: str | None) -> None:
    """Show a run until it ends, and then what it found in its storage.

    Raises:
        typer.Exit: It ended otherwise than well: 3 where its gates failed, else 1.
        UserError: A stage cannot start, or the service is gone.
    """
    from rich.console import Console

    state: RunState = require("podium_pipelines.watch").follow(remote, run, Console(file=sys.stdout))
    for line in _verdict(state, storage):
        typer.echo(line)
    if storage and state.exit_code in (ExitCode.DONE, ExitCode.GATES_FAILED):
        typer.echo(f"podium collect {run} --open brings report and model here")
    if state.exit_code == ExitCode.DONE:
        return
    reason = f": {state.error}" if state.error else ""
    typer.echo(f"The run ended as {state.state}{reason}; podium logs {run} shows more", err=True)
    raise typer.Exit(state.exit_code)
