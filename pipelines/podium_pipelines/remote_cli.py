"""Start runs on a cluster: the verb submit. The verbs for a run that is there are in run_verbs."""

import tempfile
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from podium.errors import UserError
from podium_pipelines import run_verbs
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
    from podium.config import PodiumConfig
    from podium_pipelines.remote import Remote


def register(app: typer.Typer) -> None:
    """Add the verbs for runs on a cluster to the `podium` application."""
    app.command("submit")(submit)
    run_verbs.register(app)


def submit(
    config: ConfigFile,
    overrides: Overrides = None,
    target: Annotated[Target | None, typer.Option(help="Where it is to run. [default: platform.target]")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Follow the run to its end, and end as it did.")] = False,
    allow_failed_gates: AllowFailedGates = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the request and the pipeline that would be sent; ask nobody.")
    ] = False,
    skip_preflight: Annotated[
        bool, typer.Option("--skip-preflight", help="Do not look at service, bucket, rights and image before.")
    ] = False,
) -> None:
    """Start the pipeline on Kubeflow or Vertex AI."""
    settings = read_config(config, with_gates(overrides, allow_failed_gates))
    goal = target_name(settings, target)
    compiler = require("podium_pipelines.compiler")
    remotes = require("podium_pipelines.remote")
    remotes.refuse_local(compiler.local_paths(settings), goal)
    name, storage = remotes.run_name(), require("podium_pipelines.rlhf").storage_of(settings, goal)
    env = {"STORAGE": storage, "RUN": name} if storage else {}
    if dry_run:
        text = compiler.compile_text(settings, goal, env=env)
        typer.echo(require("podium_pipelines.requests_sent").shown(settings.platform, goal, name, text), nl=False)
        _note("nothing was sent; submit also asks the stores which version each file has")
        return
    remote: Remote = remotes.connect(settings.platform, goal)
    if not skip_preflight:
        preflight = require("podium_pipelines.preflight")
        looks = [preflight.of_image(settings.platform.image), remote.preflight(name)]
        if goal == "kubeflow":
            looks.append(preflight.of_hosts(settings.platform))
        preflight.require(chain(*looks), _note)
    known = require("podium_pipelines.versions").resolved(settings, _note)
    text = compiler.compile_text(settings, goal, known, env)
    with tempfile.TemporaryDirectory() as folder:
        spec = Path(folder, "pipeline.yaml")
        spec.write_text(text, encoding="utf-8")
        run = remote.submit(spec, name)
    _remember(settings, goal)
    typer.echo(f"Run     {run}")
    typer.echo(f"Page    {remote.address(run)}")
    if storage:
        typer.echo(f"Report  {storage.rstrip('/')}/runs/{name}/report.html, when it is evaluated")
    if wait:
        run_verbs.finish(remote, run, storage)


def _remember(settings: "PodiumConfig", goal: str) -> None:
    """Note the service for the commands that follow the run; without a note they need --config."""
    try:
        require("podium_pipelines.remembered").remember(settings.platform, goal)
    except (OSError, UserError) as error:
        _note(f"this service is not remembered ({error}): the next commands need --config")


def _note(text: str) -> None:
    typer.echo(f"Note: {text}", err=True)
