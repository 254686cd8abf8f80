"""Leave out XLA's alarm about slow compilation: it tells users to file a bug where nothing is wrong.

XLA logs it as an error of its C++ code, on file descriptor 2, and has no switch for it; TF_CPP_MIN_LOG_LEVEL could only
hide real errors with it. So the descriptor is led through a process that drops the alarm and passes on all else: a
process, because what a dying program says last must arrive, too.
"""

import functools
import os
import subprocess
import sys
from io import TextIOWrapper

# When XLA sounds it: two minutes into a compilation.
AFTER_S = 120.0
# An alarm is a line of the log and a message between two lines of stars. More than a few lines are no alarm.
_FILTER = """
import signal, sys
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)  # it ends with its writers
left = stars = 0
for line in sys.stdin.buffer:
    if b"slow_operation_alarm.cc" in line:
        left, stars = 6, 0
    if left:
        stars += line.strip() == b"*" * 32
        left = 0 if stars == 2 else left - 1
        continue
    sys.stdout.buffer.write(line)
    sys.stdout.buffer.flush()
"""


@functools.cache
def silence_alarm() -> "subprocess.Popen[bytes]":
    """Drop the alarm from what this process logs from now on; Python's own output to stderr goes past the filter.

    Gives the filter's process, which the cache holds: Python warns of a process that is let go while it runs.
    """
    shown = os.dup(2)
    command = [sys.executable, "-I", "-S", "-c", _FILTER]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=shown)
    assert child.stdin is not None, "a pipe was asked for"
    os.dup2(child.stdin.fileno(), 2)
    child.stdin.close()
    stream = sys.stderr
    if isinstance(stream, TextIOWrapper) and stream is sys.__stderr__:
        # A bar asks whether it writes to a terminal.
        sys.stderr = os.fdopen(shown, "w", 1, encoding=stream.encoding, errors=stream.errors)
    return child
