"""Process-wide settings that must be in place before JAX is imported. Imports no JAX itself."""

import ctypes
import os

# XLA's own CPU matrix products are slower than oneDNN's (measured: 1.3x on a PPO step); other platforms ignore these.
CPU_XLA_FLAGS = ("--xla_cpu_use_onednn=true", "--xla_cpu_experimental_onednn_fusion_type=dot")

# From glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -2, -4, -8


def configure() -> None:
    """Set XLA's CPU flags and tell the allocator to keep freed memory; call before the first import of jax.

    XLA's CPU backend allocates its temporaries anew in every execution. With glibc's defaults each one is mapped and
    unmapped, and a step spends a large share of its time in page faults. Flags the user has set win.
    """
    set_flags = os.environ.get("XLA_FLAGS", "")
    ours = [flag for flag in CPU_XLA_FLAGS if flag.split("=")[0] not in set_flags]
    os.environ["XLA_FLAGS"] = " ".join([*ours, set_flags]).strip()
    keep_freed_memory()


def keep_freed_memory() -> bool:
    """Make glibc serve large blocks from a heap that is never trimmed; false where the C library is not glibc."""
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    settings = ((_M_ARENA_MAX, 1), (_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, 2**31 - 1), (_M_TOP_PAD, 64 * 2**20))
    return all(mallopt(name, value) == 1 for name, value in settings)
