"""Process-wide settings that must be in place before JAX is imported. Imports no JAX itself."""

import ctypes

# From glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -2, -4, -8


def configure() -> None:
    """Tell the allocator to keep freed memory; call before the first import of jax.

    XLA's CPU backend allocates its temporaries anew in every execution. With glibc's defaults each large one is mapped
    and unmapped, and a step spends part of its time in page faults.

    XLA's oneDNN fusions, which are faster on some processors, are not switched on: with jax 0.10.2 they end in an
    illegal instruction on others.
    """
    keep_freed_memory()


def keep_freed_memory() -> bool:
    """Make glibc serve large blocks from a heap that is never trimmed; false where the C library is not glibc."""
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    settings = ((_M_ARENA_MAX, 1), (_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, 2**31 - 1), (_M_TOP_PAD, 64 * 2**20))
    return all(mallopt(name, value) == 1 for name, value in settings)
