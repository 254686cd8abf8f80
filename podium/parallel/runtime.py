"""Process-wide settings that must be in place before JAX is imported. Imports no JAX itself."""

import os
import sys

TUNABLES = "GLIBC_TUNABLES"
HUGE_PAGES = "glibc.malloc.hugetlb"
# Huge pages; and a heap that grows by 64 MiB beyond what is asked for, so that it seldom grows, and shrinks, at all.
SETTINGS = {HUGE_PAGES: "1", "glibc.malloc.top_pad": str(64 << 20)}
FLAGS = "XLA_FLAGS"
# XLA prefers vectors of half the width that processors with AVX-512 have; others take what they have in either case.
VECTOR_WIDTH = "xla_cpu_prefer_vector_width", "512"


def configure() -> None:
    """Let XLA's CPU backend use wide vectors, and the allocator huge pages and memory to spare.

    Call before the first import of jax and before any output.

    XLA's CPU backend allocates its temporaries anew in every execution, and in pages of 4 KiB a step spends up to a
    third of its time in page faults (docs/benchmarks.md). glibc reads the settings when a process starts, so this one
    starts itself again, once, with the same arguments and the same process id. A setting of the user's own is kept;
    older C libraries, and others, ignore them.

    XLA's oneDNN fusions, which are faster on some processors, are not switched on: jax 0.10.2 fails to compile them,
    or ends in an illegal instruction, on others.
    """
    flags, (name, width) = os.environ.get(FLAGS, ""), VECTOR_WIDTH
    if name not in flags:
        os.environ[FLAGS] = f"{flags} --{name}={width}".strip()
    given = os.environ.get(TUNABLES, "")
    missing = [f"{name}={value}" for name, value in SETTINGS.items() if name not in given]
    if sys.platform != "linux" or not missing:
        return
    os.environ[TUNABLES] = ":".join(filter(None, (given, *missing)))
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
