"""XLA's alarm about slow compilation does not reach the user; whatever else is logged does, even by a dying process."""

import signal
import subprocess
import sys

# As XLA 0.10.2 writes it, once after two minutes and once when the compilation ends.
STARS = "*" * 32
MESSAGE = (
    f"{STARS}\n[Compiling module jit_step for CPU] Very slow compile? If you want to file a bug, run with envvar "
    f"XLA_FLAGS=--xla_dump_to=/tmp/foo and attach the results.\n{STARS}\n"
)
ALARM = f"2026-11-27 09:40:01.1: E external/xla/xla/service/slow_operation_alarm.cc:73] \n{MESSAGE}"
LATER = (
    f"2026-11-27 09:41:01.1: E external/xla/xla/service/slow_operation_alarm.cc:140] The operation took 3m\n\n{MESSAGE}"
)
PROGRAM = """
import os, sys
from podium.parallel.alarm import silence_alarm
os.write(2, b"before\\n")
silence_alarm()
silence_alarm()
os.write(2, b"E first.cc:1] an error\\n" + sys.argv[1].encode() + b"E second.cc:2] another\\n")
print("of Python", file=sys.stderr)
os.write(2, b"F third.cc:3] the last words")
os.abort()
"""


def test_the_alarm_is_dropped_and_nothing_else() -> None:
    """Warnings are errors, as in these tests: a slow compilation in one of them must not make it fail."""
    command = [sys.executable, "-W", "error", "-c", PROGRAM, ALARM + LATER]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == -signal.SIGABRT
    # Python's own words go past the filter and may come earlier.
    assert sorted(done.stderr.splitlines()) == sorted(
        ["before", "E first.cc:1] an error", "E second.cc:2] another", "of Python", "F third.cc:3] the last words"]
    )
