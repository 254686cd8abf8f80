"""Work in a child where this is process 1, as a container's only program is.

For process 1 the kernel drops every signal that it does not handle: SIGTERM goes unheard, and an abort ends it as a
segmentation fault (139) instead of with 134. And with it all others of the container end at once, also the process
through which its last lines go (`podium.parallel.alarm`).
"""

import os
import signal
import time

PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
# How long what the child has left behind may take to write what it holds.
LAST_WORDS_S = 5.0


def run_in_child() -> None:
    """Return in a child where this is process 1, else at once; process 1 passes on signals and ends as the child does.

    Call before anything starts a thread.
    """
    if os.getpid() != 1:
        return
    # What comes before there is a handler waits for it.
    signal.pthread_sigmask(signal.SIG_BLOCK, PASSED_ON)
    child = os.fork()
    if child:
        os._exit(_attend(child))
    # In a group of its own: Ctrl-C at a terminal would reach it twice.
    os.setpgid(0, 0)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED_ON)


def _attend(child: int) -> int:
    """Wait for the child, then for what it leaves behind; returns the exit code, 128 + n where signal n ended it."""
    for passed in PASSED_ON:
        signal.signal(passed, lambda number, _: os.kill(child, number))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED_ON)
    ended = -1
    # Whose parent has ended becomes a child of process 1.
    while ended != child:
        ended, status = os.wait()
    for passed in PASSED_ON:
        signal.signal(passed, signal.SIG_IGN)
    code = os.waitstatus_to_exitcode(status)
    deadline = time.monotonic() + LAST_WORDS_S
    while time.monotonic() < deadline:
        try:
            if os.waitpid(-1, os.WNOHANG) == (0, 0):
                time.sleep(0.02)
        except ChildProcessError:
            break
    return code if code >= 0 else 128 - code
