"""Measure how fast two processors together read memory with NumPy: `bandwidth.py RESULT.json`, in bytes per second.

Each of two threads reads half of a gibibyte, by the largest element or by the product of two vectors; the fastest of
several readings counts. Both hold no lock of Python's while they read.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

import cases

cases.limit_threads()
os.environ["OPENBLAS_NUM_THREADS"] = "1"

import numpy as np  # noqa: E402 - threads are chosen before NumPy starts

READINGS = 8


def largest(part: np.ndarray) -> None:
    np.maximum.reduce(part)


def product(part: np.ndarray) -> None:
    first, second = part.reshape(2, -1)
    np.dot(first, second)


def best(read: Callable[[np.ndarray], None], parts: list[np.ndarray]) -> float:
    """Bytes per second of the fastest reading."""
    rates = []
    with ThreadPoolExecutor(len(parts)) as pool:
        for _ in range(READINGS):
            start = time.perf_counter()
            list(pool.map(read, parts))
            rates.append(sum(part.nbytes for part in parts) / (time.perf_counter() - start))
    return max(rates)


def main(result_file: str) -> None:
    parts = list(np.ones((cases.THREADS, 2**27), np.float32))
    rate = max(best(read, parts) for read in (largest, product))
    Path(result_file).write_text(json.dumps({"bytes_per_second": rate, "versions": {"numpy": version("numpy")}}))


if __name__ == "__main__":
    main(*sys.argv[1:])
