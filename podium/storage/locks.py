"""Let one process at a time use a place; the lock ends with its holders, however they end."""

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def locked(path: Path, busy: Callable[[str], Exception], *, patience_s: float = 5.0) -> Iterator[int]:
    """Hold the lock of a file, which is made where it is missing, and yield its file descriptor.

    Give the descriptor to child processes: the lock then holds until the last of them has ended, even where this
    process was killed. `patience_s` is how long to wait for such children to end. Where somebody else holds it, raise
    what `busy` makes of the process id that the holder wrote into the file ("unknown" where it wrote none).
    """
    with path.open("a+", encoding="utf-8") as file:
        _wait(file.fileno(), path, busy, patience_s)
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield file.fileno()


def _wait(descriptor: int, path: Path, busy: Callable[[str], Exception], patience_s: float) -> None:
    deadline = time.monotonic() + patience_s
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise busy(path.read_text(encoding="utf-8") or "unknown") from None
            time.sleep(0.1)
