"""What becomes of an earlier run where a changed config, data file or model makes its results outdated."""

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import yaml

from podium.config import PodiumConfig
from podium.errors import UserError
from podium.storage.files import write_text
from podium_pipelines import workdir

# Beside each other in a run folder: what is asked of the stages and what they say; and the stages whose results are on
# their way out, with the name under which the earlier run is kept.
REQUEST, ANSWER, LEAVING = ".podium.request", ".podium.answer", ".podium.leaving"
_OWN = (workdir.LOCK, REQUEST, ANSWER, LEAVING)
_MANIFEST = "manifest.json"
_MOST_REASONS = 4

# Run the podium command with these words where the stages run, to its end.
Ask = Callable[[Sequence[str]], None]


def outdated(out: Path, config: PodiumConfig, ask: Ask) -> dict[str, list[str]]:
    """Return the stages whose results are of no use any more, in the order of a run, each with its own reasons."""
    if not any(out.glob("*/*/manifest.json")) and not any(out.glob("*/*/.work/task")):
        return {}
    before = yaml.safe_load((out / workdir.CONFIG).read_text("utf-8")) if (out / workdir.CONFIG).exists() else None
    request = {"config": config.model_dump(mode="json"), "before": before, "folder": str(out)}
    write_text(out / REQUEST, json.dumps(request))
    try:
        ask(["changes", str(out / REQUEST), str(out / ANSWER)])
        result: dict[str, list[str]] = json.loads((out / ANSWER).read_text("utf-8"))
        return result
    finally:
        for name in (REQUEST, ANSWER):
            (out / name).unlink(missing_ok=True)


def explain(result: Mapping[str, Sequence[str]], edges: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Say in one line for each cause what is made again: `ppo.max_steps 40 -> 6: ppo, evaluate, export again`."""
    causes: dict[str, set[str]] = {}
    for stage, reasons in result.items():
        for reason in reasons:
            causes.setdefault(reason, set()).update({stage} | _behind(stage, edges))
    lines: dict[tuple[str, ...], list[str]] = {}
    for reason, stages in causes.items():
        lines.setdefault(tuple(stage for stage in result if stage in stages), []).append(reason)
    return [f"{_listed(reasons)}: {', '.join(stages)} again" for stages, reasons in lines.items()]


def _behind(stage: str, edges: Mapping[str, Mapping[str, str]]) -> set[str]:
    direct = {name for name, inputs in edges.items() if any(place.startswith(f"{stage}/") for place in inputs.values())}
    return direct.union(*(_behind(one, edges) for one in direct))


def _listed(reasons: Sequence[str]) -> str:
    more = len(reasons) - _MOST_REASONS
    return ", ".join([*reasons[:_MOST_REASONS], *([f"{more} more"] if more > 0 else [])])


def keep(out: Path, stages: Sequence[str]) -> Path:
    """Leave the run as it is in OUT.N, with N one more than the highest there is, and take the stages out of `out`.

    Files are linked, not copied, where the file system allows it. Whenever a kill comes, `out` or OUT.N is whole, and
    `finish_moving` ends what was begun.

    Raises:
        UserError: There is no room beside `out`, or it cannot be written.
    """
    kept, scratch = out.with_name(f"{out.name}.{_highest(out) + 1}"), _scratch(out)
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        shutil.copytree(
            out,
            scratch,
            symlinks=True,
            copy_function=_link(out, stages),
            ignore=lambda folder, names: _OWN if Path(folder) == out else (),
        )
        (scratch / workdir.LOCK).touch()
        write_text(out / LEAVING, json.dumps({"kept": kept.name, "stages": list(stages)}))
        scratch.rename(kept)
    except OSError as error:
        shutil.rmtree(scratch, ignore_errors=True)
        raise UserError(
            f"--out {out}: its earlier run cannot be kept as {kept} ({_reason(error)}); "
            "make room there, name another --out, or write --redo to replace it"
        ) from error
    finish_moving(out)
    return kept


def _reason(error: OSError) -> str:
    # Copying a tree gathers (source, target, reason).
    return str(error.args[0][0][2]) if isinstance(error, shutil.Error) else error.strerror or str(error)


def replace(out: Path, stages: Sequence[str]) -> None:
    """Take the stages' results out of a run folder."""
    write_text(out / LEAVING, json.dumps({"kept": None, "stages": list(stages)}))
    finish_moving(out)


def finish_moving(out: Path) -> None:
    """End what a killed `keep` or `replace` began, where there is something to end."""
    note = out / LEAVING
    if note.exists():
        leaving = json.loads(note.read_text("utf-8"))
        if leaving["kept"] is None or out.with_name(leaving["kept"]).exists():
            for stage in leaving["stages"]:
                shutil.rmtree(out / stage, ignore_errors=True)
        note.unlink()
    note.with_name(f"{note.name}.tmp").unlink(missing_ok=True)
    if _scratch(out).exists():
        shutil.rmtree(_scratch(out), ignore_errors=True)


def _scratch(out: Path) -> Path:
    return out.with_name(f".{out.name}.partial")


def _highest(out: Path) -> int:
    numbers = (path.name.removeprefix(f"{out.name}.") for path in out.parent.glob("*"))
    return max((int(number) for number in numbers if number.isdecimal()), default=0)


def _link(out: Path, stages: Sequence[str]) -> Callable[[str, str], object]:
    """Return how to keep a file: linked where nothing writes to it any more, else copied."""

    def is_still(path: Path) -> bool:
        stage, *rest = path.relative_to(out).parts
        return stage in stages or (len(rest) > 1 and (out / stage / rest[0] / _MANIFEST).exists())

    def keep_file(source: str, target: str) -> object:
        if is_still(Path(source)):
            try:
                os.link(source, target, follow_symlinks=False)
                return target
            except OSError:
                pass  # another disk, or a file system without links: copied below
        return shutil.copy2(source, target, follow_symlinks=False)

    return keep_file
