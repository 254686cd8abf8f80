"""The `podium` command. Whatever is heavy is imported inside the verb that needs it."""

import importlib.metadata
import sys
from typing import Annotated, NoReturn

import typer

from podium.cli import config, stage, weights
from podium.errors import ExitCode, GatesFailed, Stopped, UserError
from podium.version import __version__

EPILOG = "Start with:  podium validate rlhf.yaml  then  podium run rlhf.yaml"


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

    A run is one YAML file. podium validate checks it, podium run runs all of it here, podium compile turns it into
    a Kubeflow or Vertex AI pipeline. Each stage is a command of its own too.
    """


def build_app() -> typer.Typer:
    """Return the application with the verbs of this package and of every package that adds some.

    An entry point of the group podium.commands is a function that takes the application and adds verbs to it.
    """
    app = typer.Typer(
        name="podium",
        add_completion=False,
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
    stage.register(app)
    weights.register(app)
    return app


def main() -> NoReturn:
    """Run the command line and leave with an ExitCode, or 130 after Ctrl-C; faults of ours keep their stack trace."""
    try:
        build_app()(prog_name="podium")
    except UserError as error:
        _fail(error)
    except GatesFailed as failure:
        _leave("gates failed", failure, ExitCode.GATES_FAILED)
    except Stopped as stop:
        sys.stdout.flush()
        print(f"podium {stop}", file=sys.stderr)
        sys.exit(ExitCode.STOPPED)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        from podium.storage.failures import is_full_disk

        if not is_full_disk(error):
            raise
        where = getattr(error, "filename", None) or "this machine"
        _fail(UserError(f"{where}: no space left on the disk; free some and start the same command again"))
    sys.exit(0)


def _fail(error: UserError) -> NoReturn:
    """Print each line of a user's mistake as an error and leave with 2."""
    _leave("error", error, ExitCode.USER)


def _leave(kind: str, error: Exception, code: ExitCode) -> NoReturn:
    sys.stdout.flush()
    for line in str(error).splitlines():
        print(f"podium: {kind}: {line}", file=sys.stderr)
    sys.exit(code)
