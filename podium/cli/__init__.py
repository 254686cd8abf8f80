"""The `podium` command. Whatever is heavy is imported inside the verb that needs it."""

import importlib.metadata
import re
import sys
from io import TextIOWrapper
from typing import Annotated, NoReturn

import typer

from podium.cli import config, doctor, plan, stage, weights
from podium.cli.ending import conclude, is_fault
from podium.errors import ExitCode, UserError
from podium.parallel.process_one import run_in_child
from podium.version import __version__

EPILOG = "Start with:  podium init rlhf.yaml  then  podium validate rlhf.yaml  and  podium run rlhf.yaml"


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"podium {__version__}")
        raise typer.Exit


def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """Align a language model with human preferences: reward model, PPO, evaluation.

    A run is one YAML file. podium init writes one to start from, podium validate checks it, podium run runs all of it
    here, podium compile turns it into a Kubeflow or Vertex AI pipeline. Each stage is a command of its own too.

    Exit status: 0 done, 1 a fault of ours, 2 something to mend, 3 gates failed, 75 stopped (start it again), 128 + n
    ended by signal n.
    """


def build_app() -> typer.Typer:
    """Return the application with the verbs of this package and of every package that adds some.

    An entry point of the group podium.commands is a function that takes the application and adds verbs to it.
    """
    app = typer.Typer(
        name="podium",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
        epilog=EPILOG,
    )
    app.callback()(_root)
    for entry in sorted(importlib.metadata.entry_points(group="podium.commands"), key=lambda entry: entry.name):
        entry.load()(app)
    config.register(app)
    plan.register(app)
    stage.register(app)
    weights.register(app)
    doctor.register(app)
    return app


def main() -> NoReturn:
    """Run the command line and leave with an ExitCode, or 130 after Ctrl-C; faults of ours keep their stack trace."""
    run_in_child()
    if isinstance(sys.stdout, TextIOWrapper):
        # A name that is not UTF-8, or a terminal that is not, is no reason to end.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        _refuse_dotted_options(sys.argv[1:])
        build_app()(prog_name="podium")
    except (Exception, KeyboardInterrupt) as error:
        if is_fault(error):
            raise
        sys.exit(conclude(error))
    sys.exit(ExitCode.DONE)


def _refuse_dotted_options(words: list[str]) -> None:
    """Point at KEY=VALUE for --ppo.kl_coef=0.1, which other tools take: no option here has a dot in its name."""
    for word in words:
        if result := re.match(r"--([A-Za-z_]\w*(\.\w+)+)(=|$)", word):
            raise UserError(
                f"--{result.group(1)} is no option; write {result.group(1)}=VALUE, without --, behind CONFIG"
            )
