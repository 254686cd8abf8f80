"""Compare what two runs of the same stages left in their folders."""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from podium.training.metrics import read_metrics, without_clock

# Of weights and metrics: sums in another order, through a few steps of training.
BOUND = 1e-3


def files(out: Path) -> set[Path]:
    """Return every file; TensorBoard's have the time in their names."""
    return {path.relative_to(out) for path in out.rglob("*") if path.is_file() and "tensorboard" not in path.parts}


def apart(first: Path, second: Path) -> float:
    """Return the largest relative difference of weights and metrics.

    Raises:
        AssertionError: They hold other files.
    """
    strays = sorted(files(first) ^ files(second))
    assert not strays, f"{second} has other files than {first}: {strays[:5]}"
    gaps = [0.0]
    for path in sorted(files(first)):
        if path.suffix == ".safetensors":
            one, other = load_file(first / path), load_file(second / path)
            gaps += [_relative(values, other[name]) for name, values in one.items()]
        elif path.name == "metrics.jsonl":
            rows = zip(*(read_metrics((out / path).parent) for out in (first, second)), strict=True)
            gaps += [_relative(row[name], other[name]) for row, other in rows for name in without_clock(row)]
        elif path.name == "metrics.json":
            one, other = (json.loads((out / path).read_text(encoding="utf-8")) for out in (first, second))
            gaps += [_relative(one[name], other[name]) for name in one]
    return max(gaps)


def _relative(one: object, other: object) -> float:
    """Return the largest difference over the largest value, of values above a hundredth."""
    first, second = np.asarray(one, np.float64), np.asarray(other, np.float64)
    return float(np.abs(first - second).max(initial=0.0) / max(np.abs(first).max(initial=0.0), 1e-2))
