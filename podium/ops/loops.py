"""How loops over layers are compiled."""

from podium.ops.choices import Implementation
from podium.ops.cpu import loops as cpu
from podium.ops.platform import resolve


def scan_unrolled(layers: int, implementation: Implementation) -> bool:
    """Say whether a scan over so many layers is unrolled: never on accelerators, where layers are large."""
    return resolve(implementation) == "cpu" and layers <= cpu.MAX_UNROLLED


def decode_unrolled(layers: int, implementation: Implementation) -> bool:
    """Say whether a decode step runs over separate layers in place of a scanned stack."""
    return resolve(implementation) == "cpu" and layers <= cpu.MAX_UNROLLED_DECODE
