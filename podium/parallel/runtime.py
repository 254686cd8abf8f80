"""Process-wide settings that must be in place before JAX is imported. Imports no JAX itself."""

import os
import sys

_TUNABLES = "GLIBC_TUNABLES"
_HUGE_PAGES = "glibc.malloc.hugetlb"


def configure() -> None:
    """Give the allocator huge pages; call early, before the first import of jax and before anything is printed.

    XLA's CPU backend allocates its temporaries anew in every execution, and in pages of 4 KiB a step spends up to a
    third of its time in page faults (docs/benchmarks.md). glibc reads the setting when a process starts, so this one
    starts itself again, once, with the same arguments and the same process id. A setting of the user's own is kept;
    older C libraries, and others, ignore it.

    XLA's oneDNN fusions, which are faster on some processors, are not switched on: jax 0.10.2 fails to compile them,
    or ends in an illegal instruction, on others.
    """
    tunables = os.environ.get(_TUNABLES, "")
    if sys.platform != "linux" or _HUGE_PAGES in tunables:
        return
    os.environ[_TUNABLES] = ":".join(filter(None, (tunables, f"{_HUGE_PAGES}=1")))
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
