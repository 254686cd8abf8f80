"""Read large files by parts: each of several processes a contiguous one, checked without any reading the whole.

A file is digested in pieces of one size. The SHA-256 over the SHA-256 of all pieces is its tree digest, which processes
know that exchange what they have of it.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Self

from podium.storage.digests import Tell, chunks

MANIFEST = "manifest.json"
# The name of a tree digest in it.
TREE = "tree_sha256"
# A file has at most so many pieces, of at least so many bytes.
_PIECES, _SMALLEST = 4096, 1 << 16


def has_parts(path: Path, size: int) -> bool:
    """Tell whether a file of this size is one that processes read by parts: weights, of more than one piece."""
    return path.suffix == ".safetensors" and size > _SMALLEST


def piece_size(size: int) -> int:
    """Return the bytes of a piece of a file of this size: a power of two."""
    return int(max(_SMALLEST, 1 << (max(size - 1, 0) // _PIECES).bit_length()))


def tree_digest(pieces: Iterable[str]) -> str:
    """Return the tree digest of a file from the SHA-256 of its pieces, in hexadecimal digits."""
    return hashlib.sha256(b"".join(map(bytes.fromhex, pieces))).hexdigest()


def whole_and_parts(path: Path, tell: Tell = lambda size: None) -> tuple[str, str]:
    """Return SHA-256 and tree digest of a file, which is read once; `tell` hears of the sizes that were read."""
    whole, pieces = hashlib.sha256(), []
    for piece in chunks(path, piece_size(path.stat().st_size), tell):
        whole.update(piece)
        pieces.append(hashlib.sha256(piece).hexdigest())
    return whole.hexdigest(), tree_digest(pieces)


def noted_trees(folder: Path) -> dict[str, str]:
    """Return the tree digests that the manifest of a folder notes, by file; none where there is no manifest of ours.

    Whoever takes the folder as an artifact has read the manifest before, and said what is wrong with it.
    """
    try:
        files = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"]
        return {name: entry[TREE] for name, entry in files.items() if TREE in entry}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def shares(sizes: Mapping[Path, int], processes: int) -> list[dict[Path, tuple[int, int]]]:
    """Cut files, laid end to end, into parts of equal size, up to a piece: begin and end by file, by process."""
    total = sum(sizes.values())
    bounds = [total * number // processes for number in range(processes + 1)]
    result: list[dict[Path, tuple[int, int]]] = [{} for _ in range(processes)]
    start = 0
    for path, size in sizes.items():
        piece = piece_size(size)
        # The last piece is shorter: whoever has a bound in it has it whole.
        cuts = [min(max(bound - start, 0), size) for bound in bounds]
        cuts = [cut if cut == size else cut // piece * piece for cut in cuts]
        for share, begin, end in zip(result, cuts, cuts[1:], strict=False):
            if begin < end:
                share[path] = begin, end
        start += size
    return result


class PartReader:
    """Reads a part of a file once, from front to back, and digests its pieces where all of them are wanted."""

    def __init__(self, path: Path, begin: int, end: int, *, digests: bool) -> None:
        """Open a file for its bytes `begin` to `end`, which are bounds of pieces."""
        self.begin, self.end, self.pieces = begin, end, list[str]()
        self._file = path.open("rb", buffering=0)
        self._size, self._digests = piece_size(path.stat().st_size), digests
        self._at, self._piece = begin, memoryview(b"")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def copy(self, begin: int, into: memoryview) -> None:
        """Fill `into` with the bytes from `begin` on, no earlier than those of the last call."""
        while into:
            while begin >= self._at + len(self._piece):
                self._next(begin)
            start = begin - self._at
            count = min(len(self._piece) - start, len(into))
            into[:count] = self._piece[start : start + count]
            begin, into = begin + count, into[count:]

    def finish(self) -> list[str]:
        """Read what is left, and return the SHA-256 of all pieces; none where they are not wanted."""
        while self._digests and self._at + len(self._piece) < self.end:
            self._next(self.end)
        return self.pieces

    def _next(self, wanted: int) -> None:
        """Read the next piece; with no digests, the one that has the byte `wanted`."""
        self._at += len(self._piece)
        if not self._digests:
            self._at = max(self._at, wanted // self._size * self._size)
        self._file.seek(self._at)
        buffer, filled = memoryview(bytearray(min(self._size, self.end - self._at))), 0
        while filled < len(buffer) and (count := self._file.readinto(buffer[filled:])):
            filled += count
        if filled < len(buffer):
            raise EOFError(f"{self._file.name} became shorter while it was read")
        self._piece = buffer
        if self._digests:
            self.pieces.append(hashlib.sha256(buffer).hexdigest())
