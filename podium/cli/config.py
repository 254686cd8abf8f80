"""The verbs about the configuration itself: init, validate and schema."""

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from podium.errors import UserError, path_argument

if TYPE_CHECKING:
    from podium.config import PodiumConfig


def register(app: typer.Typer) -> None:
    """Add the verbs to the application."""
    app.command(epilog="Example:  podium init mydata/rlhf.yaml")(init)
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
    """Check a config: keys, types, limits, files.

    Unknown keys, wrong types and values that exclude each other are found. Where the target is local, so are data files
    and model folders that are not here; what is elsewhere is not checked, and said in a note. Nothing uses the network.

    Each mistake is one line with file, line, key and what to write instead; the exit code is then 2.
    Names of TRL and parameter files of Google's managed RLHF pipeline are understood, and said in a note.
    """
    from podium.config import load_config

    notices: list[str] = []
    settings = load_config(config, overrides or (), notices, look_for="target")
    if not settings.data.preferences:
        notices.append("data.preferences names no file; podium run needs one")
    _check_models(settings)
    notes(notices)
    if show:
        import yaml

        typer.echo(yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False, allow_unicode=True), nl=False)
    else:
        typer.echo(f"{config}: valid")


def init(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", parser=path_argument("FILE", "a new file"), help="New YAML file to write."),
    ] = Path("rlhf.yaml"),
) -> None:
    """Write a commented config to start from.

    Every key is in it, with its meaning and default. Three paths are yours to set: the model, the preferences and the
    prompts. A file that is there is never overwritten.
    """
    from podium.config.template import commented_config
    from podium.storage.files import write_text

    text = commented_config()
    try:
        with file.open("x", encoding="utf-8"):
            write_text(file, text)
    except FileExistsError as error:
        raise UserError(f"{file}: is there already; name a new file") from error
    except FileNotFoundError as error:
        raise UserError(f"{file}: its folder is not there; make it, or name another file") from error
    typer.echo(f"Wrote {file}: set its three paths, then  podium validate {shlex.quote(str(file))}")


def schema() -> None:
    """Print the JSON Schema of a config, for editors."""
    from podium.config import json_schema

    typer.echo(json.dumps(json_schema(), indent=2))


def notes(lines: list[str]) -> None:
    """Print what the user should know and need not mend."""
    for line in lines:
        typer.echo(f"Note: {line}", err=True)


def _check_models(settings: "PodiumConfig") -> None:
    """Refuse a model folder on this machine whose network is none that is supported."""
    from podium.models.families.config_json import parse_config
    from podium.models.weights.json_file import read_json

    for model in (settings.model, settings.reward.model):
        if model is not None and (path := Path(model.name_or_path, "config.json")).is_absolute() and path.is_file():
            parse_config(read_json(path), str(path))
