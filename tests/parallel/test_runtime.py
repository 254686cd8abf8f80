"""The process that trains has its allocator and XLA set up, whoever starts it, and keeps its arguments."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
import os, sys
from podium.parallel.runtime import configure
configure()
print(os.getpid(), os.environ["GLIBC_TUNABLES"], os.environ["XLA_FLAGS"], *sys.argv[1:], sep="|")
"""
WIDE = "--xla_cpu_prefer_vector_width=512"


def start(tunables: str | None, flags: str | None = None) -> list[str]:
    given = {name: value for name, value in {"GLIBC_TUNABLES": tunables, "XLA_FLAGS": flags}.items() if value}
    env = {name: value for name, value in os.environ.items() if name not in ("GLIBC_TUNABLES", "XLA_FLAGS")} | given
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
    assert start(given) == [expected, WIDE, "two words", "seed=7"]


@pytest.mark.skipif(sys.platform != "linux", reason="the C library of Linux reads the setting")
@pytest.mark.parametrize(
    "given, expected",
    [
        ("--xla_cpu_enable_fast_math=false", f"--xla_cpu_enable_fast_math=false {WIDE}"),
        ("--xla_cpu_prefer_vector_width=256", "--xla_cpu_prefer_vector_width=256"),
    ],
)
def test_configure_keeps_the_users_flags(given: str, expected: str) -> None:
    assert start(None, given)[1] == expected


def test_xla_knows_the_flags() -> None:
    """It ends a process that gives it an unknown one."""
    program = "from podium.parallel.runtime import configure; configure(); import jax; print(jax.numpy.ones(2).sum())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "2.0\n"), done.stderr
