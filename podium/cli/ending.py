"""How a command ends: what is printed of an error, and the exit code."""

import sys
import traceback

from podium.errors import ExitCode, GatesFailed, Stopped, explained

INTERRUPTED = 130  # 128 + SIGINT


def conclude(error: BaseException) -> int:
    """Print what a user reads of an error and return the exit code; faults of ours keep their stack trace."""
    sys.stdout.flush()
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    if isinstance(error, Stopped):
        print(f"podium {error}", file=sys.stderr)
        return ExitCode.STOPPED
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
