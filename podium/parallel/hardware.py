"""Say in words what computes: for reports that people read."""

import hashlib
import os
import platform
from collections import Counter
from pathlib import Path

import jax

# What Linux says of a processor's kind: of x86, and of ARM.
_KIND = ("vendor_id", "cpu family", "model", "flags", "CPU implementer", "CPU variant", "CPU part", "Features")


def hardware() -> str:
    """Name the devices of all processes, such as `8 x TPU v5 lite` or `2 CPU cores (AMD EPYC 7B13)`."""
    kinds = Counter(device.device_kind for device in jax.devices())
    if set(kinds) == {"cpu"}:
        cores = os.cpu_count() or 1
        name = _processor()
        return f"{cores} CPU {'core' if cores == 1 else 'cores'}" + (f" ({name})" if name else "")
    return ", ".join(f"{count} x {kind}" for kind, count in sorted(kinds.items()))


def processor_digest() -> str:
    """Name this machine's kind of processor, with all that it can do: programs for one may fail on another."""
    kind = [platform.machine(), *(_of_processor(name) for name in _KIND)]
    return hashlib.sha256("\n".join(kind).encode()).hexdigest()[:16]


def _processor() -> str:
    """Return the processor's name where the kernel tells it."""
    return _of_processor("model name")


def _of_processor(name: str) -> str:
    """Return what the kernel says of the first processor, nothing where it does not."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8", errors="replace").splitlines() if info.is_file() else []
    fields = (line.partition(":") for line in lines)
    return next((value.strip() for field, _, value in fields if field.strip() == name), "")
