"""Write a folder so that it is either complete or not there."""

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from podium.errors import UserError, file_error


@contextmanager
def staged(folder: Path, *, last: str | None = None, replaces: Iterable[str] = ()) -> Iterator[Path]:
    """Yield a temporary sibling folder; when the block ends without an error its files are at `folder`.

    A folder that exists keeps its other files, except those that match the glob patterns of `replaces`; the file
    `last`, which marks a complete folder, is taken away first and put in place last. Raises UserError
    on a full disk, and where the folder, or what the block reads, cannot be used.
    """
    folder = folder.absolute()
    temporary = folder.parent / f".{folder.name}.partial-{os.getpid()}"
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        yield temporary
        _move(temporary, folder, last, tuple(replaces))
    except UserError:
        raise
    except Exception as error:
        # Not OSError alone: safetensors words the operating system's errors in a type of its own.
        place = getattr(error, "filename", None) or temporary
        if meant := file_error(error, str(folder) if str(place).startswith(str(temporary)) else None):
            raise meant from None
        raise
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
