"""Make room for a stage's outputs: nobody else writes them, nothing foreign is touched, no earlier result is lost."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Literal

from podium.errors import UserError
from podium.stages.found import Here, Output
from podium.storage.failures import unwritable
from podium.storage.locks import locked

# What happens to an earlier result of another config: it is kept as OUTPUT.N, or replaced. An orchestrator names a
# place that is its own, so that nothing there may stop it; what no stage wrote is put aside.
Earlier = Literal["keep", "replace", "orchestrated"]
_LONGEST_SHOWN = 60


def refuse_foreign(outputs: Sequence[Output]) -> None:
    """Refuse to write where something lies that no stage wrote.

    Raises:
        UserError: For the first such output.
    """
    for output in outputs:
        with _written(output):
            if not output.is_foreign:
                continue
        what, instead = "holds files", "a new or an empty folder"
        if output.is_file or (isinstance(output, Here) and output.path.is_file()):
            what, instead = "is a file", "another place, or remove it"
        raise UserError(f"output {output.name}: {output} {what} that no stage wrote; name {instead}")


@contextmanager
def held(outputs: Sequence[Output]) -> Iterator[None]:
    """Keep other starts of a stage on this machine away from its outputs here.

    Raises:
        UserError: One is being written, or its folder cannot be.
    """
    with ExitStack() as stack:
        for output in outputs:
            if isinstance(output, Here):
                with _written(output):
                    output.path.parent.mkdir(parents=True, exist_ok=True)
                    lock = output.path.with_name(f".{output.path.name}.lock")
                    stack.enter_context(locked(lock, _busy(output.name, output.path), keep=False))
        yield


def _busy(name: str, path: Path) -> Callable[[str], Exception]:
    return lambda owner: UserError(
        f"output {name}: process {owner} is writing {path}; wait for it, stop it, or name another place"
    )


def make_room(
    outputs: Sequence[Output], key: str, *, resume: bool, earlier: Earlier, say: Callable[[str], None]
) -> None:
    """Leave outputs that an interrupted run of this task left, unless `resume` is false; put the others away.

    Raises:
        UserError: One cannot be written, or holds what no stage wrote.
    """
    if earlier != "orchestrated":
        refuse_foreign(outputs)
    going = [output for output in outputs if output.exists and not (resume and _goes_on(output, key))]
    if earlier == "keep" and any(_is_worth_keeping(output, key) for output in going):
        _keep(going, say)
        going = []
    elif foreign := [output for output in going if output.is_foreign]:
        _keep(foreign, say)
        going = [output for output in going if output not in foreign]
    for output in outputs:
        with _written(output):
            output.clear(everything=output in going)
            if not output.is_file:
                output.claim(key)


def _goes_on(output: Output, key: str) -> bool:
    """Tell whether an interrupted run of the same task left it: its checkpoints are of use."""
    return not output.is_file and output.note == key and output.damage() is None


def _is_worth_keeping(output: Output, key: str) -> bool:
    """Tell whether it is a result of another task, or holds another task's checkpoints."""
    if output.manifest is not None:
        return output.manifest.key != key
    return output.note not in (None, key) and output.has_checkpoints


def _keep(outputs: Sequence[Output], say: Callable[[str], None]) -> None:
    """Move outputs to the first OUTPUT.N that is free for all of them."""
    number = 1
    while any(output.kept(number).exists for output in outputs):
        number += 1
    for output in outputs:
        with _written(output):
            output.move(output.kept(number))
    say(f"kept what was there: {', '.join(str(output.kept(number)) for output in outputs)}")


@contextmanager
def _written(output: Output) -> Iterator[None]:
    """Turn what the system says of an output into what the user reads."""
    try:
        yield
    except OSError as error:
        raise unwritable(Path(str(output)), error) from error


def differences(before: Mapping[str, object], after: Mapping[str, object], prefix: str = "") -> Iterator[str]:
    """Yield the values of a config that differ, as `ppo.max_steps 40 -> 6`."""
    for name in sorted(before.keys() | after.keys()):
        old, new = before.get(name), after.get(name)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from differences(old, new, f"{prefix}{name}.")
        elif old != new:
            yield f"{prefix}{name} {_shown(old)} -> {_shown(new)}"


def _shown(value: object) -> str:
    """Write a value as the config has it, and of data files their paths."""
    if isinstance(value, list) and all(isinstance(item, Mapping) and "path" in item for item in value):
        value = ", ".join(item["path"] for item in value)
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[: _LONGEST_SHOWN - 3]}..."
