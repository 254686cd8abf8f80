"""The folder of a local run, and who may use it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from podium.errors import UserError, file_error
from podium.storage import locks

LOCK = ".podium.lock"
CONFIG = "config.yaml"
PIPELINE = "pipeline.yaml"
KFP_LOG = "kfp.log"


@contextmanager
def locked(out: Path, *, patience_s: float = 5.0) -> Iterator[int]:
    """Create the run folder, hold its lock and yield the lock's file descriptor, which goes to child processes.

    `patience_s` is how long to wait for the children of an earlier run to end.

    Raises:
        UserError: The folder cannot be used, holds something else, or another run is using it.
    """

    def busy(owner: str) -> UserError:
        return UserError(
            f"another run (process {owner}) is using --out {out}; wait for it, stop it, or name another folder"
        )

    _claim(out)
    with locks.locked(out / LOCK, busy, patience_s=patience_s) as descriptor:
        yield descriptor


def place(out: Path, stage: str) -> str:
    """Say where a stage that did not end goes on: at the last step that is saved, or at its start."""
    names = (path.name for path in out.glob(f"{stage}/*/.work/checkpoints/*"))
    # Saving renames a folder to its step's number once it is whole.
    step = max((int(name) for name in names if name.isdecimal()), default=None)
    return f"the start of {stage}" if step is None else f"step {step} of {stage}"


def _claim(out: Path) -> None:
    """Create the folder, or refuse one that holds anything but a run."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        if not (out / LOCK).exists():
            foreign = min((entry.name for entry in out.iterdir()), default=None)
            if foreign is not None:
                raise UserError(f"--out {out} holds {foreign!r}, which no run wrote; name a new or an empty folder")
        (out / LOCK).touch()
    except OSError as error:
        if meant := file_error(error, f"--out {out}"):
            raise meant from error
        raise UserError(f"--out {out} cannot be used: {error.strerror}; name a folder that can be written") from error
