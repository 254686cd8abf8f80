"""How a command ends: what is printed of an error, and the exit code."""

import signal
import sys
import traceback

from podium.errors import Absent, ExitCode, GatesFailed, Stopped, Terminated, explained

INTERRUPTED, TERMINATED = 128 + signal.SIGINT, 128 + signal.SIGTERM


def is_fault(error: BaseException) -> bool:
    """Tell whether an error is a fault of ours, which keeps its stack trace."""
    return not isinstance(error, KeyboardInterrupt | Stopped | Absent | GatesFailed) and explained(error) is None


def conclude(error: BaseException) -> int:
    """Print what a user reads of an error, or the stack trace of a fault of ours, and return the exit code."""
    sys.stdout.flush()
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    if isinstance(error, Terminated):
        return TERMINATED
    if isinstance(error, Stopped):
        print(f"podium {error}", file=sys.stderr)
        return ExitCode.STOPPED
    if isinstance(error, Absent):
        return _print("error", error, ExitCode.STOPPED)
    if isinstance(error, GatesFailed):
        return _print("gates failed", error, ExitCode.GATES_FAILED)
    meant = explained(error)
    if meant is not None:
        return _print("error", meant, ExitCode.USER)
    traceback.print_exception(error)
    return ExitCode.FAULT


def _print(kind: str, error: Exception, code: ExitCode) -> ExitCode:
    for line in str(error).splitlines():
        print(f"podium: {kind}: {line}", file=sys.stderr)
    return code
