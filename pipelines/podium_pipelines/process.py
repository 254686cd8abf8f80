"""Run one task of the pipeline as a process that ends when this one does."""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
# A stage that is asked to end finishes its step and saves.
GRACE_S = 120.0


class Terminated(KeyboardInterrupt):
    """What SIGTERM and SIGHUP raise here, so that they end a run the way Ctrl-C does."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextmanager
def termination_raises() -> Iterator[None]:
    """Let SIGTERM and SIGHUP raise `Terminated` in the main thread."""

    def raise_terminated(number: int, frame: FrameType | None) -> None:
        raise Terminated(number)

    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, raise_terminated) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def run_process(
    command: Sequence[str],
    *,
    env: Mapping[str, str],
    stopping: Callable[[], None] = lambda: None,
    keep_open: Sequence[int] = (),
) -> int:
    """Run a command to its end and return its exit status; its output goes where ours goes.

    It has its own process group, so that everything it started can be ended with it. Where an exception ends the wait,
    such as KeyboardInterrupt, it gets SIGTERM, `stopping` is called, and it has GRACE_S to end; a second exception
    kills it at once.
    """
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "PYTHONUNBUFFERED": "1", **env},
        pass_fds=keep_open,
        process_group=0,
        preexec_fn=_end_with_parent(),
    )
    try:
        return process.wait()
    finally:
        if process.poll() is None:
            _stop(process, stopping)


def _stop(process: subprocess.Popen[bytes], stopping: Callable[[], None]) -> None:
    try:
        os.killpg(process.pid, signal.SIGTERM)
        stopping()
        process.wait(GRACE_S)
    except subprocess.TimeoutExpired:
        pass
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _end_with_parent() -> Callable[[], None] | None:
    """Return what asks Linux, in the child, to kill it when this process dies in a way that no handler sees."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl
    parent = os.getpid()

    def ask() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before the request
            os._exit(1)

    return ask
