"""SHA-256 of files and of plain values."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

_CHUNK = 1 << 20
# A processor hashes one file at 0.4 to 2 GB/s and hashlib lets other threads run meanwhile; more files than this at a
# time only make a disk seek.
_AT_A_TIME = 8
Tell = Callable[[int], None]


def chunks(path: Path, size: int, tell: Tell) -> Iterator[memoryview]:
    """Read a file in pieces of this size, each in the memory of the one before it; the last may be shorter."""
    buffer = memoryview(bytearray(size))
    with path.open("rb", buffering=0) as file:
        filled = 0
        while count := file.readinto(buffer[filled:]):
            tell(count)
            filled += count
            if filled == size:
                yield buffer
                filled = 0
        if filled:
            yield buffer[:filled]


def file_digest(path: Path, tell: Tell = lambda size: None) -> str:
    """Return the SHA-256 of a file's bytes; `tell` hears of each piece that was read, its size in bytes."""
    digest = hashlib.sha256()
    for piece in chunks(path, _CHUNK, tell):
        digest.update(piece)
    return digest.hexdigest()


def at_once(digest: Callable[[Path, Tell], T], paths: Sequence[Path], tell: Tell = lambda size: None) -> list[T]:
    """Return a digest of each file, several at a time; `tell` is called from other threads."""
    threads = min(_AT_A_TIME, os.cpu_count() or 1, len(paths))
    if threads <= 1:
        return [digest(path, tell) for path in paths]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(lambda path: digest(path, tell), paths))


def value_digest(value: Any) -> str:
    """Return the SHA-256 of a value of JSON; the order of keys does not count. Raises ValueError for NaN."""
    text = json.dumps(value, sort_keys=True, default=dict, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
