"""Write a folder so that it is either complete or not there."""

import errno
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from podium.errors import UserError


@contextmanager
def staged(folder: Path, *, last: str | None = None, replaces: Iterable[str] = ()) -> Iterator[Path]:
    """Yield a temporary sibling folder; when the block ends without an error its files are at `folder`.

    A folder that exists keeps its other files, except those that match the glob patterns of `replaces`; the file
    `last`, which marks a complete folder, is taken away first and put in place last. Raises UserError on a full disk.
    """
    folder = folder.absolute()
    temporary = folder.parent / f".{folder.name}.partial-{os.getpid()}"
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        yield temporary
        _move(temporary, folder, last, tuple(replaces))
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.ENOTDIR):
            raise
        raise UserError(f"{folder}: cannot be written ({error.strerror}); free space or write another path") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _move(temporary: Path, folder: Path, last: str | None, replaces: tuple[str, ...]) -> None:
    if not folder.exists():
        temporary.rename(folder)
        return
    if last is not None:
        (folder / last).unlink(missing_ok=True)
    for stale in {path for pattern in replaces for path in folder.glob(pattern)}:
        stale.unlink()
    # False sorts before true: the marking file comes last.
    for path in sorted(temporary.iterdir(), key=lambda path: (path.name == last, path.name)):
        path.replace(folder / path.name)
