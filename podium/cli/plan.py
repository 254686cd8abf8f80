"""The verb that says, without a chip, whether a stage fits and how fast it can be."""

import contextlib
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from podium.cli.config import notes
from podium.errors import ExitCode, UserError, path_argument

if TYPE_CHECKING:
    from podium.planning.requests import Request


Config = Annotated[
    Path,
    typer.Argument(
        metavar="CONFIG", parser=path_argument("CONFIG", "a file"), help="YAML or JSON file of the whole run."
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="KEY=VALUE", help="Values that replace the file's, such as platform.mesh.tensor=4."),
]
Chips = Annotated[
    str | None,
    typer.Option(
        "--topology",
        metavar="CHIPS",
        help="Chips along each side of a TPU slice (v5e:4x4, v5p:2x4x4), or how many GPUs (nvidia-h100-80gb:8); "
        "default: platform.resources of the stage.",
    ),
]
Slices = Annotated[int, typer.Option("--slices", metavar="N", help="TPU slices of that shape.")]
Stage = Annotated[Literal["ppo", "reward", "sft"], typer.Option("--stage", help="Which stage's step is planned.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print everything as JSON.")]
Report = Annotated[
    Path | None,
    typer.Option(
        "--report",
        metavar="FILE.html",
        parser=path_argument("--report", "an HTML file"),
        help="Also write one HTML file that needs no network.",
    ),
]
Price = Annotated[
    float | None,
    typer.Option("--price", metavar="USD", help="Price of one chip for an hour: what the stage's run would cost."),
]
Sweep = Annotated[
    bool, typer.Option("--sweep", help="Try meshes and batch sizes on shapes, compile the fastest two (for TPUs).")
]


def register(app: typer.Typer) -> None:
    """Add the verb to the application."""
    app.command(epilog="Example:  podium plan rlhf.yaml --topology v5e:4x4 --stage ppo --price 1.2")(plan)


def plan(
    config: Config,
    overrides: Overrides = None,
    topology: Chips = None,
    slices: Slices = 1,
    stage: Stage = "ppo",
    as_json: AsJson = False,
    report: Report = None,
    price: Price = None,
    sweep: Sweep = False,
) -> None:
    """Say whether a stage fits on chips that are not here, how fast it can be, and what it costs.

    The stage's own program is compiled for the named TPUs, on this machine, which needs libtpu and some minutes; for
    GPUs memory and time follow from shapes. Of the models config.json alone is read. Every time is predicted from
    published rates, none is measured. Plans are kept, so that the same question is answered at once.

    Exit status: 0 it fits, 2 it does not, or something is to be mended.
    """
    if price is not None and not price >= 0:
        raise UserError(f"--price {price:g}: write what one chip costs for an hour, in USD")
    if sweep and report is not None:
        raise UserError("--report draws one plan; leave --sweep or --report out")
    from podium.config import load_config
    from podium.planning import topology as topologies
    from podium.planning.folders import models_of
    from podium.planning.requests import Request

    found: list[str] = []
    settings = load_config(config, overrides or (), found)
    notes(found)
    chips = topologies.wanted(settings, stage, topology, slices)
    _run(Request(stage, settings, models_of(settings, stage), chips, sweep), as_json, report, price)


def _run(request: "Request", as_json: bool, report: Path | None, price: float | None) -> None:
    from podium.planning import table
    from podium.planning.requests import answer
    from podium.planning.results import plan_of

    with _Progress() as say:
        found = answer(request, say)
    if request.sweep:
        if as_json:
            typer.echo(json.dumps(found["sweep"], indent=2))
        else:
            table.show_sweep(found, str(request.topology))
        return
    result = plan_of(request, found, price)
    if report is not None:
        _write_report(report, result)
    if as_json:
        typer.echo(json.dumps(result, indent=2))
    else:
        table.show(result)
    if not result["fits"]:
        sys.stdout.flush()
        memory = result["memory"]
        ratio = memory["peak"] / memory["limit"]
        print(
            f"podium: error: {request.stage} does not fit {request.topology}: a chip would need "
            f"{ratio:.2f} times its memory",
            file=sys.stderr,
        )
        raise typer.Exit(ExitCode.USER)


def _write_report(file: Path, result: dict[str, Any]) -> None:
    from podium.planning.report import html
    from podium.storage.files import write_text

    if not file.parent.is_dir():
        raise UserError(f"--report {file}: its folder is not there; make it, or name another file")
    write_text(file, html(result))
    typer.echo(f"Wrote {file}", err=True)


class _Progress:
    """Say on the error stream what goes on, and how long it has, inside a `with` block."""

    def __init__(self) -> None:
        self._now = contextlib.ExitStack()
        self._begun = time.monotonic()

    def __enter__(self) -> "_Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self._now.close()

    def __call__(self, text: str) -> None:
        from podium.training.progress import Waiting

        self._now.close()
        typer.echo(f"podium plan: {text} (after {time.monotonic() - self._begun:.0f} s)", err=True)
        self._now.enter_context(Waiting(f"podium plan: {text}"))
