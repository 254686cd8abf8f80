"""The verbs for runs on a cluster: submit, status, cancel, logs."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from podium.errors import path_argument
from podium_pipelines.arguments import (
    AllowFailedGates,
    ConfigFile,
    Overrides,
    Target,
    read_config,
    require,
    target_name,
    with_gates,
)

if TYPE_CHECKING:
    from podium_pipelines.remote import Remote

Run = Annotated[str, typer.Argument(metavar="RUN", help="What podium submit printed: an id, or projects/.../ID.")]
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
    for verb in (submit, status, cancel, logs):
        app.command(verb.__name__)(verb)


def submit(
    config: ConfigFile,
    overrides: Overrides = None,
    target: Annotated[Target | None, typer.Option(help="Where it is to run. [default: platform.target]")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Follow the run to its end.")] = False,
    allow_failed_gates: AllowFailedGates = False,
) -> None:
    """Start the pipeline on Kubeflow or Vertex AI."""
    settings = read_config(config, with_gates(overrides, allow_failed_gates))
    goal = target_name(settings, target)
    compiler = require("podium_pipelines.compiler")
    remotes = require("podium_pipelines.remote")
    remotes.refuse_local(compiler.local_paths(settings), goal)
    known = require("podium_pipelines.versions").resolved(settings, lambda text: typer.echo(f"Note: {text}", err=True))
    name, storage = remotes.run_name(), require("podium_pipelines.rlhf").storage_of(settings, goal)
    text = compiler.compile_text(settings, goal, known, {"STORAGE": storage, "RUN": name} if storage else {})
    remote: Remote = remotes.connect(settings, goal)
    with tempfile.TemporaryDirectory() as folder:
        spec = Path(folder, "pipeline.yaml")
        spec.write_text(text, encoding="utf-8")
        run = remote.submit(spec, name)
    typer.echo(f"Run     {run}")
    typer.echo(f"Page    {remote.address(run)}")
    if storage:
        typer.echo(f"Report  {storage.rstrip('/')}/runs/{name}/report.html, when it is evaluated")
    if wait:
        _finish(remote, run)


def status(run: Run, config: ConfigOption = None) -> None:
    """Say how far a run is."""
    from podium_pipelines.remote import ordered

    state = _connect(run, config).state(run)
    for stage in ordered(state.stages):
        typer.echo(f"{stage:<9} {state.stages[stage]}")
    typer.echo(f"{'run':<9} {state.state}")
    if state.error:
        typer.echo(state.error, err=True)


def cancel(run: Run, config: ConfigOption = None) -> None:
    """Stop a run."""
    _connect(run, config).cancel(run)
    typer.echo(f"Asked to stop {run}")


def logs(run: Run, config: ConfigOption = None) -> None:
    """Show what the stages of a run printed."""
    for line in _connect(run, config).logs(run):
        typer.echo(line)


def _connect(run: str, config: Path | None) -> "Remote":
    """Return the client for a run that was submitted earlier."""
    from podium.config import PodiumConfig

    remotes = require("podium_pipelines.remote")
    settings = read_config(config, ()) if config else PodiumConfig.model_validate({"model": {"name_or_path": "-"}})
    remote: Remote = remotes.connect(settings, remotes.target_of(run))
    return remote


def _finish(remote: "Remote", run: str) -> None:
    from podium_pipelines.remote import follow

    state = follow(remote, run, typer.echo)
    if state.state != "succeeded":
        reason = f": {state.error}" if state.error else ""
        typer.echo(f"The run ended as {state.state}{reason}; podium logs {run} shows more", err=True)
        raise typer.Exit(1)
