"""The process that trains has its allocator set up, whoever starts it, and keeps its arguments."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
import os, sys
from podium.parallel.runtime import configure
configure()
print(os.getpid(), os.environ["GLIBC_TUNABLES"], *sys.argv[1:], sep="|")
"""


def start(tunables: str | None) -> list[str]:
    env = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"}
    if tunables is not None:
        env["GLIBC_TUNABLES"] = tunables
    words = [sys.executable, "-c", PROGRAM, "two words", "seed=7"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=env)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    pid, *rest = output.strip().split("|")
    assert int(pid) == process.pid, "it must stay the process that its parent waits for"
    return rest


@pytest.mark.skipif(sys.platform != "linux", reason="the C library of Linux reads the setting")
@pytest.mark.parametrize(
    "given, expected",
    [
        (None, "glibc.malloc.hugetlb=1:glibc.malloc.top_pad=67108864"),
        ("glibc.malloc.check=0", "glibc.malloc.check=0:glibc.malloc.hugetlb=1:glibc.malloc.top_pad=67108864"),
        ("glibc.malloc.hugetlb=0", "glibc.malloc.hugetlb=0:glibc.malloc.top_pad=67108864"),
        ("glibc.malloc.top_pad=0:glibc.malloc.hugetlb=0", "glibc.malloc.top_pad=0:glibc.malloc.hugetlb=0"),
    ],
)
def test_configure_sets_the_allocator_up_once(given: str | None, expected: str) -> None:
    assert start(given) == [expected, "two words", "seed=7"]
