"""`podium run` with the stand-in in place of the stages; a UserError is printed as the podium command prints it."""

import sys
from pathlib import Path

import typer

from podium.errors import UserError
from podium_pipelines import cli

STAND_IN = (sys.executable, str(Path(__file__).with_name("stand_in.py")))


def main(
    config: Path,
    out: Path,
    overrides: cli.Overrides = None,
    runner: cli.Runner = cli.Runner.process,
    redo: bool = False,
    allow_failed_gates: cli.AllowFailedGates = False,
) -> None:
    """Run a pipeline whose stages do nothing."""
    try:
        cli.run_here(config, cli.with_gates(overrides, allow_failed_gates), out, runner, redo=redo, program=STAND_IN)
    except UserError as error:
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(2) from error


if __name__ == "__main__":
    typer.run(main)
