"""Unpack compressed files, with a limit, and name files that hold something else than rows."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import re
import zipfile
import zlib
from collections.abc import Callable
from functools import partial
from typing import IO, Any

from podium.errors import UserError

# How far a compressed file may unfold. Text and tables of real data sets shrink 3 to 20 times, a file of zeros 1000
# times; 256 MiB fits wherever a stage runs; rows of 4 GiB take several times that in memory, so who means it unpacks
# the file first.
UNFOLD_TIMES = 100
UNFOLD_ALWAYS = 1 << 28
UNFOLD_AT_MOST = 1 << 32
# A file may be compressed twice by a web server's doing.
_LAYERS = 2
_ZIP = b"PK\x03\x04"


def _arrow_stream(codec: str) -> Callable[[bytes], Any]:
    def opened(content: bytes) -> Any:
        import pyarrow

        return pyarrow.CompressedInputStream(pyarrow.BufferReader(content), codec)

    return opened


def _xz(content: bytes) -> Any:
    return lzma.open(io.BytesIO(content))


# First bytes, name, endings and reader.
_PACKED: tuple[tuple[bytes, str, tuple[str, ...], Callable[[bytes], Any]], ...] = (
    (rb"\x1f\x8b", "gzip", (".gz", ".gzip"), lambda content: gzip.GzipFile(fileobj=io.BytesIO(content))),
    (rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18", "zstd", (".zst", ".zstd"), _arrow_stream("zstd")),
    (rb"BZh[1-9](?:1AY&SY|\x17rE8P\x90)", "bz2", (".bz2",), lambda content: bz2.BZ2File(io.BytesIO(content))),
    (rb"\xfd7zXZ\x00", "xz", (".xz",), _xz),
    (rb"\x04\x22\x4d\x18", "lz4", (".lz4",), _arrow_stream("lz4")),
)
ENDINGS = tuple(ending for _, _, endings, _ in _PACKED for ending in endings)
# NotImplementedError, of zip, is a RuntimeError; Arrow's own are ValueErrors, OSErrors and MemoryErrors.
_DAMAGES = (OSError, EOFError, ValueError, RuntimeError, MemoryError, zlib.error, lzma.LZMAError, zipfile.BadZipFile)

_EXCEL = "is an Excel workbook; save it as CSV (UTF-8)"
# First bytes of what people take for a file of rows, and what to do.
_OTHER_KINDS = (
    (rb"version https://git-lfs\.github\.com/spec/", "is a Git LFS pointer, not the data; run git lfs pull"),
    (rb"(?:\S*\.git)?/annex/objects/", "is a git-annex pointer, not the data; run git annex get"),
    (rb"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "is an Office file of the old kind; save it as CSV (UTF-8)"),
    (rb"(?s)PARE.*PARE\Z", "is an encrypted Parquet file; write it without encryption"),
    (rb"(?s)FEA1.*FEA1\Z", "is a Feather file, version 1; write Parquet"),
    (rb"(?s)ORC.*ORC.\Z", "is an ORC file; write Parquet"),
    (rb"Obj\x01", "is an Avro file; write Parquet or one JSON object a line"),
    (rb"SQLite format 3\x00", "is an SQLite database; export the table as CSV"),
    (rb"\x89HDF\r\n\x1a\n", "is an HDF5 file; write Parquet"),
    (rb"\x93NUMPY", "is a NumPy array; write Parquet or one JSON object a line"),
    (rb"\x80[\x02-\x05](?:\x95|\}|\]|c|\(|X|K)", "is a Python pickle, which may run code; write Parquet or JSON lines"),
    (rb"%PDF-", "is a PDF; write one JSON object a line, CSV or Parquet"),
    (rb"\x1f\x9d", "is compressed with compress (.Z); unpack it, or write gzip"),
    (rb"7z\xbc\xaf\x27\x1c", "is a 7-Zip archive; unpack it, or write gzip"),
    (rb"Rar!\x1a\x07", "is a RAR archive; unpack it, or write gzip"),
    (rb"(?s).{257}ustar", "is a tar archive; unpack it and name the files in it"),
    (rb"\{\\rtf", "is a Rich Text document; save it as plain text, one JSON object a line"),
    (rb"(?i)(?:\xef\xbb\xbf)?\s*<(?:!doctype|html|\?xml|!--)", "is a web page or XML, not the data; fetch the file"),
)


def refuse_other_kind(path: str, content: bytes) -> None:
    """Raise UserError for a file of a known kind that holds no rows, and say what to do with it."""
    for start, reason in _OTHER_KINDS:
        if re.match(start, content):
            raise UserError(f"{path}: {reason}")
    if content.startswith(_ZIP):
        raise UserError(f"{path}: {_of_archive(content)[0]}")
    if re.search(r"\.xls[xmb]?$", path.lower()):
        raise UserError(f"{path}: is named as an Excel workbook but is none; save it as CSV (UTF-8)")


def unpacked(path: str, content: bytes) -> tuple[str, bytes]:
    """Return a file's name without the endings of compression, and its content unpacked.

    Raises:
        UserError: It is damaged, unfolds too far, or is compressed again and again.
    """
    name = path
    for _ in range(_LAYERS + 1):
        result = next((entry for entry in _PACKED if re.match(entry[0], content)), None)
        if result is not None:
            _, kind, endings, opened = result
            content = _unfold(path, kind, content, opened)
            name = _without(name, endings)
        elif content.startswith(_ZIP) and (member := _of_archive(content)[1]):
            content = _unfold(path, "zip", content, partial(_opened_member, member=member))
            name = member
        else:
            return name, content
    raise UserError(f"{path}: is compressed more than {_LAYERS} times; unpack it")


def _without(name: str, endings: tuple[str, ...]) -> str:
    ending = next((ending for ending in endings if name.lower().endswith(ending)), "")
    return name[: len(name) - len(ending)]


def _unfold(path: str, kind: str, packed: bytes, opened: Callable[[bytes], Any]) -> bytes:
    limit = min(max(UNFOLD_TIMES * len(packed), UNFOLD_ALWAYS), UNFOLD_AT_MOST)
    parts, size = [], 0
    try:
        stream: IO[bytes]
        with opened(packed) as stream:
            while size <= limit and (part := stream.read(1 << 20)):
                parts.append(part)
                size += len(part)
    except _DAMAGES as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"{path}: is compressed with {kind} and cannot be unpacked ({reason}); fetch or write it again"
        ) from None
    if size > limit:
        raise UserError(
            f"{path}: {len(packed)} bytes of {kind} unfold to more than {limit}, which a few bytes may do to fill this "
            "machine's memory; if that is meant, unpack it and name what it holds"
        )
    return b"".join(parts)


def _of_archive(content: bytes) -> tuple[str, str | None]:
    """Return what a zip archive is, as the user reads it, and the name of the only file in it, if there is one."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = [entry.filename for entry in archive.infolist() if not entry.is_dir()]
    except _DAMAGES:
        names = re.findall(r"xl/workbook\.|word/document\.|content\.xml", content[: 1 << 16].decode("latin-1"))
        if not names:
            return "is a damaged zip archive; fetch it again, or unpack it", None
    if any(name.startswith("xl/") for name in names):
        return _EXCEL, None
    if any(name.startswith("word/") for name in names):
        return "is a Word document; write one JSON object a line, CSV or Parquet", None
    if "content.xml" in names:
        return "is a LibreOffice document; save it as CSV (UTF-8)", None
    names = [name for name in names if not name.startswith("__MACOSX/")]
    if len(names) == 1:
        return "is a zip archive", names[0]
    return f"is a zip archive of {len(names)} files; unpack it and name them", None


def _opened_member(content: bytes, member: str) -> Any:
    return zipfile.ZipFile(io.BytesIO(content)).open(member)
