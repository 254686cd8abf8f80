"""What a user's mistake raises, and the exit codes of every command."""

from enum import IntEnum


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
