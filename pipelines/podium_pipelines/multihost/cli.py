"""The verbs of phases on several hosts: launch, which a pipeline's task runs, and manifests, for a namespace."""

import os
from typing import Annotated

import typer

from podium_pipelines.arguments import require


def register(app: typer.Typer) -> None:
    """Add the verbs to the `podium` application."""
    app.command("launch", hidden=True)(launch)
    app.command("manifests")(manifests)


def launch(
    stage: Annotated[str, typer.Argument(metavar="STAGE")],
    executor_input: Annotated[str, typer.Option("--executor-input", metavar="JSON")],
) -> None:
    """Run a stage on several hosts of the cluster that this task runs in, and end as it does."""
    task, follow = (require(f"podium_pipelines.multihost.{name}") for name in ("task", "follow"))
    try:
        task.run(stage, executor_input, os.environ, typer.echo)
    except follow.JobFailed as failure:
        typer.echo(f"podium launch {stage}: {failure}", err=True)
        raise typer.Exit(failure.code) from None


def manifests(
    namespace: Annotated[str, typer.Option(metavar="NAME", help="Namespace of the runs.")] = "kubeflow",
    service_account: Annotated[
        str, typer.Option(metavar="NAME", help="Account that the pipeline's tasks act as.")
    ] = "pipeline-runner",
) -> None:
    """Print what a namespace needs for stages on several hosts, to be given to kubectl apply -f -.

    A TrainingRuntime, and a role for the account of the pipeline's tasks: to make, watch and delete TrainJobs and
    JobSets, and to read their pods and logs. Nothing of it is cluster-wide.
    """
    import yaml

    objects = require("podium_pipelines.multihost.manifests").manifests(namespace, service_account)
    typer.echo(yaml.safe_dump_all(objects, sort_keys=False), nl=False)
