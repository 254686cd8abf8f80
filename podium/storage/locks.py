"""Let one process at a time use a place; the lock ends with its holders, however they end."""

import errno
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

PATIENCE_S = 5.0
# What mounted object stores and some network file systems say: there, nobody can hold a lock.
_NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOLCK)


@contextmanager
def locked(
    path: Path, busy: Callable[[str], Exception], *, patience_s: float | None = None, keep: bool = True
) -> Iterator[int]:
    """Hold the lock of a file, which is made where it is missing, and yield its file descriptor.

    Give the descriptor to child processes: the lock then holds until the last of them has ended, even where this
    process was killed. `patience_s`, else PATIENCE_S, is how long to wait for such children to end. Where somebody
    else holds it, raise what `busy` makes of the process id that the holder wrote into the file ("unknown" where it
    wrote none). Unless `keep` holds, the file goes with the lock. A file system without locks lets everybody in.
    """
    deadline = time.monotonic() + (PATIENCE_S if patience_s is None else patience_s)
    while True:
        with path.open("a+", encoding="utf-8") as file:
            _wait(file, busy, deadline)
            if not _is_at(file, path):  # its holder took it away while we waited
                continue
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            try:
                yield file.fileno()
            finally:
                if not keep:
                    path.unlink(missing_ok=True)
            return


def try_lock(descriptor: int) -> bool:
    """Take the lock of an open file or folder, unless somebody else has it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
    return True


def _wait(file: IO[str], busy: Callable[[str], Exception], deadline: float) -> None:
    while not try_lock(file.fileno()):
        if time.monotonic() >= deadline:
            file.seek(0)
            raise busy(file.read() or "unknown")
        time.sleep(0.1)


def _is_at(file: IO[str], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
