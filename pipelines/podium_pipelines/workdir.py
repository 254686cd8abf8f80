"""The folder of a local run, and who may use it."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from podium.config import STAGES
from podium.errors import UserError

LOCK = ".podium.lock"
CONFIG = "config.yaml"
PIPELINE = "pipeline.yaml"
KFP_LOG = "kfp.log"
_OURS = (CONFIG, PIPELINE, *STAGES)


@contextmanager
def locked(out: Path, *, patience_s: float = 5.0) -> Iterator[int]:
    """Create the run folder, hold its lock and yield the lock's file descriptor.

    Give the descriptor to child processes: the lock then holds until the last of them has ended, even where this
    process was killed. `patience_s` is how long to wait for such children to end.

    Raises:
        UserError: The folder cannot be used, holds something else, or another run is using it.
    """
    _claim(out)
    with (out / LOCK).open("a+", encoding="utf-8") as file:
        _lock(file.fileno(), out, patience_s)
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield file.fileno()


def place(out: Path, stage: str) -> str:
    """Say where a stage that did not end goes on: at the last step that is saved, or at its start."""
    names = (path.name for path in out.glob(f"{stage}/*/.work/checkpoints/*"))
    # Saving renames a folder to its step's number once it is whole.
    step = max((int(name) for name in names if name.isdecimal()), default=None)
    return f"the start of {stage}" if step is None else f"step {step} of {stage}"


def _claim(out: Path) -> None:
    """Create the folder, or refuse one whose files are not ours to replace."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        foreign = [name for name in _OURS if (out / name).exists()]
        if foreign and not (out / LOCK).exists():
            raise UserError(f"--out {out} holds a {foreign[0]!r} that no run wrote; name a new or an empty folder")
        (out / LOCK).touch()
    except OSError as error:
        raise UserError(f"--out {out} cannot be used: {error.strerror}; name a folder that can be written") from error


def _lock(descriptor: int, out: Path, patience_s: float) -> None:
    deadline = time.monotonic() + patience_s
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= deadline:
                owner = (out / LOCK).read_text(encoding="utf-8") or "unknown"
                raise UserError(
                    f"another run (process {owner}) is using --out {out}; wait for it, stop it, or name another folder"
                ) from None
            time.sleep(0.1)


def write_text(path: Path, text: str) -> None:
    """Write a file so that a reader sees all of it or nothing."""
    scratch = path.with_name(f"{path.name}.tmp")
    scratch.write_text(text, encoding="utf-8")
    scratch.replace(path)
