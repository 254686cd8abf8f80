"""Write a folder so that it is either complete or not there."""

import glob
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from podium.errors import UserError, file_error
from podium.storage.locks import try_lock


@contextmanager
def staged(folder: Path, *, last: str | None = None, replaces: Iterable[str] = ()) -> Iterator[Path]:
    """Yield a temporary sibling folder; when the block ends without an error its files are at `folder`.

    A folder that exists keeps its other files, except those that match the glob patterns of `replaces`; the file
    `last`, which marks a complete folder, is taken away first and put in place last. What killed processes left
    beside the folder is removed. Raises UserError on a full disk, and where the folder, or what the block reads,
    cannot be used.
    """
    folder = folder.absolute()
    temporary = folder.parent / f".{folder.name}.partial-{os.getpid()}"
    try:
        remove_leftovers(folder)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        with _held(temporary):
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


def remove_leftovers(folder: Path) -> None:
    """Remove temporary folders of `staged` for this folder whose processes have ended without removing them."""
    for path in folder.parent.glob(f".{glob.escape(folder.name)}.partial-*"):
        try:
            with _held(path) as held:
                if held and not _is_running(path.name.rpartition("-")[2]):
                    shutil.rmtree(path, ignore_errors=True)
        except OSError:  # it is gone, or somebody else's
            continue


@contextmanager
def _held(folder: Path) -> Iterator[bool]:
    """Hold the lock of a folder: other machines and containers, too, see from it that its writer is alive."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        yield try_lock(descriptor)
    finally:
        os.close(descriptor)


def _is_running(process: str) -> bool:
    """Tell whether another process of this machine has this id."""
    if not process.isdigit() or int(process) == os.getpid():
        return False
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    return True


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
        if path.is_dir() and (folder / path.name).is_dir():
            shutil.rmtree(folder / path.name)  # no folder is renamed over one with files
        path.replace(folder / path.name)
