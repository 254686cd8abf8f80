"""Say in words what computes: for reports that people read."""

import os
from collections import Counter
from pathlib import Path

import jax


def hardware() -> str:
    """Name the devices of all processes, such as `8 x TPU v5 lite` or `2 CPU cores (AMD EPYC 7B13)`."""
    kinds = Counter(device.device_kind for device in jax.devices())
    if set(kinds) == {"cpu"}:
        cores = os.cpu_count() or 1
        name = _processor()
        return f"{cores} CPU {'core' if cores == 1 else 'cores'}" + (f" ({name})" if name else "")
    return ", ".join(f"{count} x {kind}" for kind, count in sorted(kinds.items()))


def _processor() -> str:
    """Return the processor's name where the kernel tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8", errors="replace").splitlines() if info.is_file() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
