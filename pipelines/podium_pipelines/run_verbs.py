"""The verbs for a run that was submitted earlier: status, cancel, logs."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from podium.errors import ExitCode, UserError, path_argument
from podium_pipelines.arguments import read_config, require

if TYPE_CHECKING:
    from podium_pipelines.remote import Remote

RunName = Annotated[str, typer.Argument(metavar="RUN", help="What podium submit printed: an id, or projects/.../ID.")]
ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        parser=path_argument("--config", "a file"),
        help="Config whose platform section says where the service is.",
    ),
]


def register(app: typer.Typer) -> None:
    """Add the verbs to the `podium` application."""
    for verb in (status, cancel, logs):
        app.command(verb.__name__)(verb)


def status(run: RunName, config: ConfigOption = None) -> None:
    """Say how far a run is, and why a stage failed or does not start.

    Exits with 0 while it runs and when it succeeded, 3 where its gates failed, else 1.
    """
    watch = require("podium_pipelines.watch")
    state = connect(run, config).state(run)
    for line in watch.lines(state):
        typer.echo(line)
    if state.note:
        typer.echo(f"Note: {state.note}", err=True)
    if state.exit_code:
        raise typer.Exit(state.exit_code)


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
    for line in connect(run, config).logs(run, wanted):
        typer.echo(line)
        sys.stdout.flush()


def connect(run: str, config: Path | None) -> "Remote":
    """Return the client for a run that was submitted earlier.

    Raises:
        UserError: The config cannot be read, or the service cannot be reached.
    """
    from podium.config import PodiumConfig

    remotes = require("podium_pipelines.remote")
    settings = read_config(config, ()) if config else PodiumConfig.model_validate({"model": {"name_or_path": "-"}})
    remote: Remote = remotes.connect(settings, remotes.target_of(run))
    return remote


def finish(remote: "Remote", run: str) -> None:
    """Show a run until it ends.

    Raises:
        typer.Exit: It ended otherwise than well: 3 where its gates failed, else 1.
        UserError: A stage cannot start, or the service is gone.
    """
    from rich.console import Console

    state = require("podium_pipelines.watch").follow(remote, run, Console(file=sys.stdout))
    if state.exit_code == ExitCode.DONE:
        return
    reason = f": {state.error}" if state.error else ""
    typer.echo(f"The run ended as {state.state}{reason}; podium logs {run} shows more", err=True)
    raise typer.Exit(state.exit_code)
