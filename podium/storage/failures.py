"""What the user reads where an output cannot be written."""

import errno
from pathlib import Path

from podium.errors import FULL, UserError, why_full


def is_full_disk(error: BaseException) -> bool:
    """Tell whether an error says that nothing more can be written: a full disk, a quota, a limit on a file's size."""
    return why_full(error) is not None


def full_disk(where: object, error: BaseException | None = None) -> UserError:
    """Return what the user reads where nothing more can be written, with the reason that `error` gives."""
    reason = why_full(error) if error is not None else None
    return UserError(f"{where}: {reason or FULL[errno.ENOSPC]}, or name an output on another one")


def unwritable(path: Path, error: OSError) -> UserError:
    """Return what the user reads about an output that cannot be written."""
    if is_full_disk(error):
        return full_disk(path, error)
    return UserError(f"{path}: cannot be written: {error.strerror or error}; name an output that can")
