"""Check files against a list of digests that lies beside them, in the form that sha256sum and md5sum write."""

import fnmatch
import hashlib
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from podium.config import MODEL_FILES
from podium.errors import UserError

SUMS = "SHA256SUMS"
READ = MODEL_FILES
_LINE = re.compile(r"(?P<digest>[0-9a-fA-F]+) [ *](?P<name>.+)")
_DIGITS = {"sha256": 64, "md5": 32}


def verify(folder: Path, *, sums: str = SUMS, algorithm: str = "sha256", needed: Sequence[str] = READ) -> None:
    """Hash every file that the list in this folder names, where there is such a list.

    Raises UserError for the first file whose digest differs, or that is not there though it matches `needed`: a copy
    of a folder may leave out what nobody reads.
    """
    if not (folder / sums).is_file():
        return
    for name, digest in _listed(folder / sums, algorithm).items():
        path = folder / name
        if path.is_file():
            _compare(path, digest, folder / sums, algorithm)
        elif any(fnmatch.fnmatchcase(path.name, pattern) for pattern in needed):
            raise UserError(f"{path}: no such file, though {sums} lists it; fetch it again")


def verify_file(path: Path) -> None:
    """Hash one file, where a list beside it names it."""
    sums = path.parent / SUMS
    digest = _listed(sums, "sha256").get(path.name) if sums.is_file() else None
    if digest is not None:
        _compare(path, digest, sums, "sha256")


def _listed(sums: Path, algorithm: str) -> dict[str, str]:
    result = {}
    try:
        lines = sums.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise UserError(f"{sums}: cannot be read ({error}); fetch it again or remove it") from None
    for number, line in enumerate(lines, start=1):
        match = _LINE.fullmatch(line)
        if not line.strip():
            continue
        if match is None or len(match["digest"]) != _DIGITS[algorithm]:
            raise UserError(
                f"{sums}, line {number}: not a digest and a name; write it with {algorithm}sum or remove it"
            )
        name = PurePosixPath(match["name"])
        if name.is_absolute() or ".." in name.parts:
            raise UserError(f"{sums}, line {number}: {match['name']} is outside of this folder; write names within it")
        result[str(name)] = match["digest"].lower()
    return result


def _compare(path: Path, digest: str, sums: Path, algorithm: str) -> None:
    with path.open("rb") as file:
        result = hashlib.file_digest(file, lambda: hashlib.new(algorithm, usedforsecurity=False)).hexdigest()
    if result != digest:
        raise UserError(f"{path}: its content is not what {sums.name} says (another {algorithm}); fetch the file again")
