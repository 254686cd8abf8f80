"""Recognise failures that are a machine's or user's, whatever library reports them."""

import errno
from collections.abc import Iterator
from pathlib import Path

from podium.errors import UserError

_FULL = {errno.ENOSPC, errno.EDQUOT}
# Safetensors and TensorStore wrap the operating system's error and keep only its text.
_FULL_TEXTS = ("No space left on device", "Disk quota exceeded", *(f"os_error_code='{number}'" for number in _FULL))


def chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and what it came from, newest first."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or current.__context__


def is_full_disk(error: BaseException) -> bool:
    """Tell whether an error says that a disk or quota is full."""
    return any(
        (isinstance(item, OSError) and item.errno in _FULL) or any(text in str(item) for text in _FULL_TEXTS)
        for item in chain(error)
    )


def full_disk(where: object) -> UserError:
    """Return what the user reads about a full disk."""
    return UserError(f"{where}: no space left on the disk; free some, or name an output on another one")


def unwritable(path: Path, error: OSError) -> UserError:
    """Return what the user reads about an output that cannot be written."""
    if is_full_disk(error):
        return full_disk(path)
    return UserError(f"{path}: cannot be written: {error.strerror or error}; name an output that can")
