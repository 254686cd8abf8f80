"""The verbs about the configuration itself: validate and schema."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from podium.errors import exists, path_argument

if TYPE_CHECKING:
    from podium.config import PodiumConfig


def register(app: typer.Typer) -> None:
    """Add the verbs to the application."""
    app.command(epilog="Example:  podium validate rlhf.yaml ppo.kl_coef=0.1")(validate)
    app.command(epilog="Example:  podium schema > podium.schema.json")(schema)


def validate(
    config: Annotated[
        Path,
        typer.Argument(
            metavar="CONFIG", parser=path_argument("CONFIG", "a file"), help="YAML or JSON file of the whole run."
        ),
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE", help="Values that replace the file's, such as ppo.max_steps=20."),
    ] = None,
    show: Annotated[bool, typer.Option("--show", help="Print the resolved config: every default written out.")] = False,
) -> None:
    """Check a config: unknown keys, types, limits, values that exclude each other, data files that are not here.

    Each mistake is one line with file, line, key and what to write instead; the exit code is then 2.
    Names of TRL and parameter files of Google's managed RLHF pipeline are understood, and said in a note.
    """
    from podium.config import load_config

    notices: list[str] = []
    settings = load_config(config, overrides or (), notices)
    notes(notices + _absent(settings))
    if show:
        import yaml

        typer.echo(yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False, allow_unicode=True), nl=False)
    else:
        typer.echo(f"{config}: valid")


def schema() -> None:
    """Print the JSON Schema of a config, for editors and other programs."""
    from podium.config import json_schema

    typer.echo(json.dumps(json_schema(), indent=2))


def notes(lines: list[str]) -> None:
    """Print what the user should know and need not mend."""
    for line in lines:
        typer.echo(f"Note: {line}", err=True)


def _absent(settings: "PodiumConfig") -> list[str]:
    """Return a note for each data file that is not on this machine, and for data that is not named at all."""
    data = settings.data
    lines = [] if data.preferences else ["data.preferences names no file; podium run needs one"]
    for source in data.files:
        if "://" not in source.path and "*" not in source.path and not exists(source.path):
            lines.append(f"{source.path} is not on this machine")
    return lines
