"""What the commands share: their arguments, and how they read a config and import what is heavy."""

import importlib
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated

import typer

from podium.errors import UserError

if TYPE_CHECKING:
    from podium.config import PodiumConfig

_EXTRAS = {"kfp": "kfp", "kubernetes": "kfp", "google": "vertex"}

ConfigFile = Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML file of the whole run.")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="Values that replace the file's, such as ppo.max_steps=20."),
]
AllowFailedGates = Annotated[
    bool,
    typer.Option("--allow-failed-gates", help="Let failed gates fail nothing, this once; they are shown all the same."),
]


class Target(StrEnum):
    """Where a compiled pipeline is to run."""

    kubeflow = "kubeflow"
    vertex = "vertex"


def read_config(config: Path, overrides: Sequence[str]) -> "PodiumConfig":
    """Read the config and say what was understood under another name."""
    from podium.config import load_config

    notices: list[str] = []
    settings = load_config(config, overrides, notices)
    for notice in notices:
        typer.echo(f"Note: {notice}", err=True)
    return settings


def with_gates(overrides: Sequence[str] | None, allow_failed: bool) -> list[str]:
    """Return the overrides of a command, with what --allow-failed-gates stands for."""
    return [*(overrides or ()), *(["evaluation.gates.on_failure=warn"] if allow_failed else [])]


def target_name(settings: "PodiumConfig", target: Target | None) -> str:
    """Return where a pipeline is to run: the option's word before the config's.

    Raises:
        UserError: Neither names a cluster.
    """
    name = target.value if target else settings.platform.target
    if name == "local":
        raise UserError("platform.target is local: podium run needs no file; write --target kubeflow or vertex")
    return name


def require(module: str) -> ModuleType:
    """Import one of our modules that needs an optional dependency.

    Raises:
        UserError: The dependency is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        extra = _EXTRAS.get((error.name or "").split(".")[0])
        if extra is None:
            raise
        raise UserError(f"{error.name} is not installed; write: pip install 'podium[{extra}]'") from error
