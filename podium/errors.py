"""What a user's mistake raises, the exit codes, and what of other libraries' errors a user can mend."""

import errno
import os
from collections.abc import Callable, Iterator, Mapping
from enum import IntEnum
from pathlib import Path


class ExitCode(IntEnum):
    """How a command ended. One that a signal ended leaves with 128 + its number."""

    DONE = 0
    FAULT = 1
    USER = 2
    GATES_FAILED = 3
    # EX_TEMPFAIL of sysexits.h: whoever started it starts it again, and it goes on.
    STOPPED = 75


class UserError(Exception):
    """Say in one or two lines what is wrong, where it is, and what to write instead.

    Raise it for anything a user can mend: a path, a config value, a data row, a model folder. The command
    line prints the message without a stack trace and exits with code 2. Faults of our own stay ordinary exceptions.
    """


class GatesFailed(Exception):
    """Say, one gate a line, which thresholds of evaluation.gates a run missed.

    Everything was computed and written: the command line prints the lines and exits with code 3.
    """


class Stopped(Exception):
    """A signal ended a stage between two steps, and the last of them is saved: the same command goes on from there.

    The command line prints the message and leaves with ExitCode.STOPPED.
    """

    def __init__(self, stage: str, done: int, total: int) -> None:
        super().__init__(f"{stage}: stopped after step {done} of {total}, which is saved; start it again to go on")
        self.done = done


class Absent(Exception):
    """Processes of a run did not meet in time, which whoever started them may mend by starting all again.

    The command line prints the message and leaves with ExitCode.STOPPED.
    """


class Terminated(BaseException):
    """SIGTERM came to one of several processes that have nothing to save; the others hear of it."""


# Nothing more can be written: the disk, a quota, or the size that a file may have here.
FULL = {
    errno.ENOSPC: "no space left on the disk; free some",
    errno.EDQUOT: "the disk quota is used up; free some",
    errno.EFBIG: "a file would be larger than ulimit -f or this disk allows; raise the limit",
}
# Safetensors and TensorStore wrap the operating system's error and keep only its text.
_TEXTS = ("os_error_code='{}'", "(os error {})", "code: {}, kind:")
_FULL_TEXTS = {os.strerror(number): number for number in (errno.ENOSPC, errno.EDQUOT)}
# What the operating system says of a path that its user can mend. A file that is not there is left out: where a user
# names one, the code says so itself, and where none does, it is our fault.
_OF_A_PATH = FULL | {
    errno.EACCES: "permission denied; change its owner or mode, or name another path",
    errno.EPERM: "the operation is not permitted; change its owner or mode, or name another path",
    errno.EROFS: "the file system is read-only; name a path on another one",
    errno.ENAMETOOLONG: "the name is too long for a path; write a path, not its contents",
    errno.ELOOP: "symbolic links that lead back to themselves; name the file or folder itself",
    errno.ENOTDIR: "a part of this path is a file, not a folder; check the path",
    errno.EISDIR: "is a folder; name a file",
    errno.EEXIST: "something else is there already; name another path",
    errno.EMFILE: "too many open files; raise the limit (ulimit -n)",
    errno.ENFILE: "too many open files on this machine; close some",
    errno.EIO: "the disk cannot be read or written (input/output error); check it, or name a path on another one",
    errno.ESTALE: "the network file system has lost this file; mount it again, or name another path",
}
_LONGEST_SHOWN = 120
# What pathlib raises as RuntimeError, before Python 3.13 also for links.
_NO_HOME = "Could not determine home directory"
_LINKS = "Symlink loop from "

# Extras of pyproject.toml by the packages that only they bring; the longest name that fits counts.
_EXTRAS = {
    **dict.fromkeys(
        (
            *("flax", "fsspec", "gguf", "huggingface_hub", "jax", "jaxlib", "jaxtyping", "jinja2", "markupsafe"),
            *("ml_dtypes", "numpy", "optax", "orbax", "pyarrow", "safetensors", "scipy", "tensorboardX", "tokenizers"),
            "transformers",
        ),
        "train",
    ),
    **dict.fromkeys(("gcsfs", "s3fs"), "cloud"),
    **dict.fromkeys(("kfp", "kfp_server_api", "kubernetes", "urllib3", "google.protobuf"), "kfp"),
    "google": "vertex",
    "torch": "import",
}


def explained(error: BaseException) -> UserError | None:
    """Return what a user reads of an error that is theirs or their machine's, or None where it is a fault of ours."""
    if isinstance(error, UserError):
        return error
    if isinstance(error, ImportError) and (extra := extra_of(error.name or "")):
        # A plain ImportError is a namespace such as google.cloud without the part, or another version of the package.
        whole = isinstance(error, ModuleNotFoundError)
        what = f"{error.name} is not installed" if whole else f"{error.name} lacks what is needed of it ({error.msg})"
        return UserError(f"{what}; write: {install(extra)}")
    return file_error(error)


def extra_of(module: str) -> str | None:
    """Return the extra of pyproject.toml that brings a module, or None where none does."""
    parts = module.split(".")
    names = (".".join(parts[:end]) for end in range(len(parts), 0, -1))
    return next((_EXTRAS[name] for name in names if name in _EXTRAS), None)


def install(*extras: str) -> str:
    """Return the command that installs extras into an environment that has podium."""
    return f"pip install 'podium[{','.join(extras)}]'"


def chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and what it came from, newest first."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or current.__context__


def why_full(error: BaseException) -> str | None:
    """Return why an error says that nothing more can be written, whatever library reports it, or None."""
    for item in chain(error):
        for text, number in _FULL_TEXTS.items():
            if text in str(item):
                return FULL[number]
    return _why(error, FULL)


def why_unwritable(error: BaseException) -> str | None:
    """Return why an error says that a place cannot be written, whatever library reports it, or None."""
    return why_full(error) or _why(error, _OF_A_PATH | {errno.ENOENT: "the folder is gone; put it back"})


def _why(error: BaseException, reasons: Mapping[int, str]) -> str | None:
    for item in chain(error):
        if isinstance(item, OSError) and item.errno is not None and item.errno in reasons:
            return reasons[item.errno]
        for number, reason in reasons.items():
            if any(text.format(number) in str(item) for text in _TEXTS):
                return reason
    return None


def file_error(error: BaseException, name: str | None = None) -> UserError | None:
    """Return what a user reads of a path that cannot be used, or None for other errors.

    `name` is what the message calls the path; without it, that is the path itself.
    """
    if isinstance(error, RuntimeError) and _NO_HOME in str(error):
        return UserError(f"{name or '~'}: this user has no home folder; write paths in full, or set HOME")
    if isinstance(error, RuntimeError) and str(error).startswith(_LINKS):
        return UserError(f"{name or shown(str(error).removeprefix(_LINKS))}: {_OF_A_PATH[errno.ELOOP]}")
    if isinstance(error, OSError):
        result = _os_error(error, name)
        if result is not None:
            return result
    if reason := why_full(error):
        return UserError(f"{name or 'this machine'}: {reason}, then start the same command again")
    return None


def _os_error(error: OSError, name: str | None) -> UserError | None:
    if error.errno == errno.ENOENT and error.filename is None:
        if "temporary directory" in str(error.strerror):
            return UserError("no temporary folder can be written; set TMPDIR to one that can")
        if not _has_current_folder():
            return UserError("the current folder has been removed; change to one that is there")
        return None
    where = name or (shown(os.fspath(error.filename)) if isinstance(error.filename, str | bytes) else None)
    if where is None or error.errno not in _OF_A_PATH or error.errno in FULL:
        return None
    return UserError(f"{where}: {_OF_A_PATH[error.errno]}")


def _has_current_folder() -> bool:
    try:
        os.getcwd()
    except FileNotFoundError:
        return False
    return True


def shown(path: str | bytes) -> str:
    """Return a path as a message shows it: the middle of a very long one is left out."""
    text = os.fsdecode(path)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:80]}...{text[-30:]}"


def expanded(path: str | os.PathLike[str]) -> Path:
    """Return a path with ~ or ~USER in front replaced by that home folder.

    Raises:
        UserError: There is no such home folder, or no path can be written so.
    """
    text = os.fspath(path)
    if "\0" in text:
        raise UserError(f"{shown(text)!r}: no path holds the character 0; write it without")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"{shown(text)!r}: this name is not UTF-8, which configs and reports are; rename it") from error
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        user = text.split("/")[0]
        what = "no such user" if len(user) > 1 else "this user has no home folder"
        raise UserError(f"{shown(text)}: {what}; write the path in full") from error


def exists(path: str | os.PathLike[str]) -> bool:
    """Tell whether there is something at a path; nothing is at one that cannot be a path.

    Raises:
        UserError: That cannot be seen, for want of permission or because the disk fails.
    """
    try:
        os.stat(path)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE):
            raise UserError(f"{shown(os.fspath(path))}: {_OF_A_PATH[error.errno]}") from error
        return False
    except ValueError:  # a character 0
        return False
    return True


def path_argument(name: str, kind: str) -> Callable[[str | os.PathLike[str]], Path]:
    """Return a reader of the command-line argument `name`, the path of `kind` ("a folder"), in which ~ may stand.

    Raises, when called:
        UserError: The argument is empty (a variable of the shell that is not set), or its home folder is unknown.
    """

    def path(given: str | os.PathLike[str]) -> Path:
        if not os.fspath(given).strip():
            raise UserError(f"{name} is empty; name {kind}")
        return expanded(given)

    return path
