"""One verb per stage: config and artifacts in, artifacts and metrics out."""

import os
import sys
import time
from collections.abc import Callable, Sequence
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from podium.cli.config import notes
from podium.cli.ending import conclude
from podium.config import STAGE_TABLE, StageSpec
from podium.errors import UserError, path_argument

if TYPE_CHECKING:
    from podium.config import PodiumConfig
    from podium.parallel.launch import Launch
    from podium.stages.io import Result, StageIO
    from podium.stages.outputs import Earlier
    from podium.training.profiling import Profile

Config = Annotated[
    str | None, typer.Option("--config", metavar="FILE|JSON", help="YAML or JSON file, or JSON text, with the config.")
]
Inputs = Annotated[
    list[str] | None, typer.Option("--input", metavar="NAME=URI", help="An input: a path, gs:// or s3:// URI.")
]
Outputs = Annotated[
    list[str] | None, typer.Option("--output", metavar="NAME=URI", help="Where an output goes, in the same form.")
]
ExecutorInput = Annotated[
    str | None,
    typer.Option("--executor-input", metavar="JSON", help="What Kubeflow Pipelines passes in place of the others."),
]
Redo = Annotated[
    bool, typer.Option("--redo", help="Replace the result of another config instead of keeping it as OUTPUT.N.")
]
Coordinator = Annotated[
    str | None,
    typer.Option(metavar="HOST:PORT", help="With several processes: where process 0 listens for the others."),
]
NumProcesses = Annotated[int | None, typer.Option(metavar="N", help="How many processes work on the stage together.")]
ProcessId = Annotated[int | None, typer.Option(metavar="I", help="Which of them this one is, from 0.")]
Trace = Annotated[
    str | None,
    typer.Option(
        "--profile", metavar="STEP:COUNT", help="Trace COUNT steps of training from STEP on, into profile/STAGE."
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="KEY=VALUE", help="Values that replace the config's, such as seed=7."),
]


def register(app: typer.Typer) -> None:
    """Add a verb for each stage."""
    for stage, spec in STAGE_TABLE.items():
        app.command(stage, help=_help(stage, spec), epilog=f"Example:  {example(stage)}")(_command(stage))
    app.command(hidden=True)(changes)


def changes(request: Path, reply: Path) -> None:
    """Say what a changed config makes outdated in a run folder: podium run asks it (podium.stages.changes)."""
    from podium.stages.changes import answer

    answer(request, reply)


def example(stage: str) -> str:
    """Return a command that runs a stage on artifacts which lie as in a run folder, out/STAGE/NAME."""
    spec = STAGE_TABLE[stage]
    words = [f"--input {one.name}=out/{one.stage}/{one.output}" for one in spec.takes if not one.optional]
    made = [one for one in spec.makes if one.type != "Metrics"]
    words += [f"--output {one.name}=out/{stage}/{one.name}{'.html' if one.is_file else ''}" for one in made]
    return " ".join(["podium", stage, "--config rlhf.yaml", *words])


def _help(stage: str, spec: StageSpec) -> str:
    start = f" --input {spec.from_sft}=PATH starts from what sft wrote." if spec.from_sft else ""
    return (
        f"{spec.summary}{start}\n\nOutputs that are complete for the same config and inputs are kept as they are, "
        f"those of another config as OUTPUT.1, OUTPUT.2, ...; an interrupted {stage} goes on from its last checkpoint."
    )


def _command(stage: str) -> Callable[..., None]:
    """Return the function behind `podium STAGE`."""

    def command(
        config: Config = None,
        inputs: Inputs = None,
        outputs: Outputs = None,
        executor_input: ExecutorInput = None,
        redo: Redo = False,
        coordinator: Coordinator = None,
        num_processes: NumProcesses = None,
        process_id: ProcessId = None,
        profile: Trace = None,
        overrides: Overrides = None,
    ) -> None:
        from podium.parallel.launch import read_launch
        from podium.parallel.runtime import configure

        launch = read_launch(coordinator, num_processes, process_id, os.environ)
        configure()
        if executor_input is not None:
            if config or inputs or outputs or redo or profile or overrides:
                raise UserError(
                    "--executor-input holds everything; leave --config, --input, --output, --redo, --profile and "
                    "KEY=VALUE out"
                )
            _run_for_kubeflow(stage, executor_input, launch)
        elif config is None:
            raise UserError(f"podium {stage} needs --config FILE, or --executor-input JSON in a pipeline")
        else:
            _run_here(
                stage,
                config,
                inputs or (),
                outputs or (),
                overrides or (),
                redo=redo,
                launch=launch,
                profile=profile,
            )

    return command


def _run_for_kubeflow(stage: str, text: str, launch: "Launch | None") -> None:
    from podium.stages.executor import read_task, write_output

    task = read_task(text)
    _run(stage, task.config, task.io, "orchestrated", launch, lambda result: write_output(task, result))


def _run_here(
    stage: str,
    config: str,
    inputs: Sequence[str],
    outputs: Sequence[str],
    overrides: Sequence[str],
    *,
    redo: bool,
    launch: "Launch | None",
    profile: str | None,
) -> None:
    from podium.config import load_config, load_config_text
    from podium.stages.io import StageIO

    notices: list[str] = []
    if config.lstrip().startswith("{"):
        settings = load_config_text(config, source="--config", overrides=overrides, notices=notices)
    else:
        settings = load_config(path_argument("--config", "a file")(config), overrides, notices)
    notes(notices)
    spec = STAGE_TABLE[stage]
    io = StageIO(
        _named("--input", inputs, (*spec.inputs, *spec.optional), stage),
        _named("--output", outputs, spec.outputs, stage),
    )
    _require_all(stage, io, spec)
    if profile is not None:
        io.profile = _profile(stage, profile)
    _run(stage, settings, io, "replace" if redo else "keep", launch)


def _profile(stage: str, text: str) -> "Profile":
    """Read --profile; raise UserError where a stage trains nothing."""
    from podium.training.profiling import Profile

    if not STAGE_TABLE[stage].trains:
        raise UserError(f"--profile: {stage} has no training steps; it is an option of sft, reward and ppo")
    return Profile.parse(text, Path("profile", stage))


def _run(
    stage: str,
    settings: "PodiumConfig",
    io: "StageIO",
    earlier: "Earlier",
    launch: "Launch | None",
    report: Callable[["Result"], None] = lambda _: None,
) -> None:
    """Run a stage in this process, with the others of its run; `report` is given the result in the first."""
    if isinstance(sys.stdout, TextIOWrapper):
        # Through a pipe too, each line of progress is seen when it is printed.
        sys.stdout.reconfigure(line_buffering=True)
    typer.echo(f"podium {stage}: starting, model {settings.model.name_or_path}")
    from podium.parallel import distributed
    from podium.stages.runner import run_stage

    begin, platform = time.monotonic(), settings.platform
    with distributed.processes(
        launch,
        start_timeout=platform.start_timeout,
        heartbeat_timeout=platform.heartbeat_timeout,
        conclude=conclude,
        saves=STAGE_TABLE[stage].trains,
    ):
        result, skipped = run_stage(stage, settings, io, earlier=earlier, say=typer.echo)
        distributed.lead(lambda: report(result))
    if not skipped:
        typer.echo(f"podium {stage}: done in {time.monotonic() - begin:.0f} s")


def _named(option: str, pairs: Sequence[str], known: Sequence[str], stage: str) -> dict[str, str]:
    """Read NAME=URI pairs; raise UserError for a name the stage does not have, one given twice, or a wrong address."""
    from podium.config.places import mistake_in

    matches: dict[str, str] = {}
    for pair in pairs:
        name, equals, place = pair.partition("=")
        if reason := mistake_in(place, also=("minio",)):
            raise UserError(f"{option} {name}=...: {reason}")
        if not equals or not place:
            raise UserError(f"{option} {pair!r}: write NAME=PATH, with a name of: {', '.join(known) or 'none'}")
        if name not in known:
            raise UserError(f"{option} {pair!r}: {stage} has no {name!r}; its names are: {', '.join(known) or 'none'}")
        if name in matches:
            raise UserError(f"{option} {pair!r}: {name} is given twice; keep one")
        matches[name] = place
    return matches


def _require_all(stage: str, io: "StageIO", spec: StageSpec) -> None:
    """Refuse to start without an input or output that the stage will ask for."""
    missing = [f"--input {name}=PATH" for name in spec.inputs if name not in io.inputs]
    missing += [f"--output {one.name}=PATH" for one in spec.makes if one.required and one.name not in io.outputs]
    if missing:
        raise UserError(f"podium {stage} also needs {' '.join(missing)}")
