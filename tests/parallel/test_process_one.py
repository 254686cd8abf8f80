"""As a container's process 1, a command hears signals, ends with its own code, and is heard to its last word."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

# In a namespace of process ids, as in a container; as another user where only root may make one.
CONTAINERS = (["unshare", "--pid", "--fork"], ["unshare", "--user", "--map-root-user", "--pid", "--fork"])
BEGIN = """
import os, signal, sys, time
assert os.getpid() == 1
"""
IN_CHILD = """
from podium.parallel.process_one import run_in_child
run_in_child()
assert os.getpid() != 1
"""


def works(command: list[str]) -> bool:
    try:
        return subprocess.run([*command, "true"], stderr=subprocess.DEVNULL).returncode == 0
    except FileNotFoundError:
        return False


@pytest.fixture(scope="module")
def container() -> list[str]:
    found = next((command for command in CONTAINERS if works(command)), None)
    if found is None:
        pytest.skip("no namespace of process ids can be made here (unshare --pid)")
    return found


@contextmanager
def started(container: list[str], program: str, begin: str = IN_CHILD) -> Iterator["subprocess.Popen[str]"]:
    """Start a program as process 1; `unshare` ends with its code. What is left of it goes at the end."""
    command = [*container, "--kill-child", sys.executable, "-c", BEGIN + begin + program]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def first_of(process: "subprocess.Popen[str]") -> int:
    """Return the id, out here, of the process 1 that `unshare` waits for."""
    with open(f"/proc/{process.pid}/task/{process.pid}/children", encoding="ascii") as children:
        return int(children.read())


@pytest.mark.parametrize(
    ("program", "code"),
    [
        ("sys.exit(3)", 3),
        ("os.abort()", 134),
        ("os.kill(os.getpid(), signal.SIGKILL)", 137),
        # The others of a container are its children, too, once their own parents have ended.
        ("if os.fork() == 0:\n    os.fork() and os._exit(9)\n    os._exit(8)\ntime.sleep(0.3)\nsys.exit(75)", 75),
    ],
    ids=["exit", "abort", "kill", "orphans"],
)
def test_it_ends_as_its_program_does(container: list[str], program: str, code: int) -> None:
    with started(container, program) as process:
        _, errors = process.communicate(timeout=30)
        assert process.returncode == code, errors


def test_the_command_line_works_in_a_child(container: list[str]) -> None:
    program = "import podium.cli\npodium.cli.build_app = lambda: lambda **_: os.abort()\npodium.cli.main()"
    with started(container, program, begin="") as process:
        process.communicate(timeout=30)
        assert process.returncode == 134


def test_a_signal_reaches_the_program(container: list[str]) -> None:
    wait = 'signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))\nprint("ready", flush=True)\ntime.sleep(30)'
    with started(container, wait) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        os.kill(first_of(process), signal.SIGTERM)
        process.communicate(timeout=20)
        assert process.returncode == 75


def test_the_last_words_arrive(container: list[str]) -> None:
    """They go through another process, which ends with process 1 but not with its child."""
    program = """
from podium.parallel.alarm import silence_alarm
silence_alarm()
os.write(2, b"the last words")
os.abort()
"""
    with started(container, program) as process:
        _, errors = process.communicate(timeout=30)
        assert process.returncode == 134
        assert "the last words" in errors
