"""What the commands share: their arguments, and how they read a config and import what is heavy."""

import importlib
import importlib.util
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated

import typer

from podium.errors import UserError, explained, install, path_argument

if TYPE_CHECKING:
    from podium.config import PodiumConfig

ConfigFile = Annotated[
    Path,
    typer.Argument(metavar="CONFIG", parser=path_argument("CONFIG", "a file"), help="YAML file of the whole run."),
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="KEY=VALUE", help="Values that replace the file's, such as ppo.max_steps=20."),
]
AllowFailedGates = Annotated[
    bool,
    typer.Option("--allow-failed-gates", help="Let failed gates fail nothing, this once; they are shown all the same."),
]


class Target(StrEnum):
    """Where a compiled pipeline is to run."""

    kubeflow = "kubeflow"
    vertex = "vertex"


def read_config(config: Path, overrides: Sequence[str], *, here: bool = False) -> "PodiumConfig":
    """Read the config and say what was understood under another name.

    `here`: it is to run on this machine, so that what it names must be here.
    """
    from podium.config import load_config

    notices: list[str] = []
    settings = load_config(config, overrides, notices, look_for="here" if here else "nothing")
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


def require_stages() -> None:
    """Refuse to start stages as processes of an environment that cannot run them.

    Raises:
        UserError: The extra train is not installed.
    """
    if importlib.util.find_spec("jax") is None:
        raise UserError(
            f"podium run needs jax, which is not installed; write: {install('train', 'kfp')}, or --runner docker"
        )


def require(module: str) -> ModuleType:
    """Import one of our modules that needs an optional dependency.

    Raises:
        UserError: The dependency is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        meant = explained(error)
        if meant is None:
            raise
        raise meant from error
