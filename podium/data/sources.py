"""Read rows from JSONL, JSON, CSV and Parquet files, here or behind a URI, and keep the line of each."""

from __future__ import annotations

import csv
import difflib
import glob
import gzip
import io
import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from podium.errors import UserError

# One field of a CSV file may be a whole conversation; the module's own limit is 128 kB.
CSV_FIELD_LIMIT = 2**30


@dataclass(frozen=True)
class Row:
    """One row of a file; `line` is where it starts (in Parquet: the number of the row)."""

    file: str
    line: int
    values: Mapping[str, Any]


@dataclass(frozen=True)
class Refusal:
    """A row that cannot be used; `kind` groups reasons, `reason` says what is wrong and what to write instead."""

    file: str
    line: int
    kind: str
    reason: str

    def __str__(self) -> str:
        """Return the refusal as one line that editors can follow."""
        return f"{self.file}:{self.line}: {self.reason}"


def expand(path: str) -> list[str]:
    """Return the files that a path with * or ? stands for, sorted; any other path is itself."""
    if "://" in path:
        if "*" not in path:
            return [path]
        found = sorted(str(entry) for entry in _filesystem(path).glob(path))
        scheme = path.partition("://")[0]
        files = [f"{scheme}://{entry.removeprefix('/')}" for entry in found]
    elif Path(path).exists() or not glob.has_magic(path):
        return [path]
    else:
        files = sorted(entry for entry in glob.glob(path, recursive=True) if Path(entry).is_file())
    if not files:
        raise UserError(f"{path}: no file fits this pattern; check the path")
    return files


def read_rows(path: str) -> Iterator[Row | Refusal]:
    """Read a file of any accepted type; a row that is not readable comes back as a refusal."""
    return parse_rows(path, read_content(path))


def parse_rows(path: str, content: bytes) -> Iterator[Row | Refusal]:
    """Read the rows of a file's content.

    The content tells the type (gzip, Parquet, JSON), for CSV the name. Raises UserError for a file that has no rows.
    """
    content = _unzipped(path, content)
    if not content.strip():
        raise UserError(
            f"{path}: the file is empty; write one JSON object a line, a CSV file with a header, or Parquet"
        )
    name = path.lower().removesuffix(".gz")
    if content.startswith(b"PAR1"):
        return _parquet_rows(path, content)
    if name.endswith((".csv", ".tsv")):
        return _csv_rows(path, content, delimiter="\t" if name.endswith(".tsv") else ",")
    if content.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"["):
        return _array_rows(path, content)
    if name.endswith((".jsonl", ".ndjson", ".json")) or content.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{"):
        return _jsonl_rows(path, content)
    raise UserError(f"{path}: cannot tell the type of this file; name it .jsonl, .json, .csv, .tsv or .parquet")


def read_content(path: str) -> bytes:
    """Read a file, here or behind a URI. Raises UserError where that is not possible."""
    if "://" in path:
        return _remote_content(path)
    try:
        return Path(path).read_bytes()
    except FileNotFoundError:
        _raise_missing(path)
    except IsADirectoryError:
        raise UserError(f"{path}: is a folder; name a file in it") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check the path and its permissions") from None


def _raise_missing(path: str) -> NoReturn:
    parent = Path(path).parent
    names = [entry.name for entry in parent.iterdir()] if parent.is_dir() else []
    near = difflib.get_close_matches(Path(path).name, names, n=1)
    advice = f"did you mean {parent / near[0]}?" if near else "check the path"
    raise UserError(f"{path}: no such file; {advice}") from None


def _remote_content(path: str) -> bytes:
    system = _filesystem(path)
    try:
        return bytes(system.cat_file(path))
    # Every storage client raises its own kinds of error: missing files, refused credentials, lost networks.
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise UserError(f"{path}: cannot be read ({reason}); check the address and your credentials") from None


def _filesystem(path: str) -> Any:
    import fsspec

    try:
        return fsspec.core.url_to_fs(path)[0]
    except ImportError as error:
        raise UserError(f"{path}: no reader for this kind of address ({error}); pip install 'podium[cloud]'") from None
    except ValueError as error:
        raise UserError(f"{path}: {error}; write a path, gs://... or s3://...") from None


def _unzipped(path: str, content: bytes) -> bytes:
    if not content.startswith(b"\x1f\x8b"):
        return content
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: the gzip file is damaged ({error}); fetch or write it again") from None


def _loads(text: str) -> Any:
    """Parse strict JSON: without NaN, and without half characters, which no UTF-8 file can hold.

    Raises ValueError with the reason.
    """

    def refuse_constant(name: str) -> NoReturn:
        raise ValueError(f"{name} is not JSON; write null")

    try:
        value = json.loads(text, parse_constant=refuse_constant)
        if "\\ud" in text or "\\uD" in text:
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ValueError(
            "half of a surrogate pair (\\ud800 to \\udfff) stands alone; write the whole character"
        ) from None
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return value


def _json_row(path: str, line: int, text: str) -> Row | Refusal:
    try:
        value = _loads(text)
    except ValueError as error:
        return Refusal(path, line, "unreadable", f"not JSON: {error}")
    if not isinstance(value, dict):
        return Refusal(path, line, "unreadable", f"a row is an object with named fields, not {type(value).__name__}")
    return Row(path, line, value)


def _jsonl_rows(path: str, content: bytes) -> Iterator[Row | Refusal]:
    # Split at b"\n" only: str.splitlines also splits at U+2028 and others, which stand inside JSON strings.
    for number, line in enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            text = line.decode()
        except UnicodeDecodeError as error:
            yield _bad_encoding(path, number, error)
        else:
            yield _json_row(path, number, text)


def _bad_encoding(path: str, line: int, error: UnicodeDecodeError) -> Refusal:
    byte = error.object[error.start]
    return Refusal(path, line, "unreadable", f"not UTF-8: byte 0x{byte:02x} at {error.start}; save the file as UTF-8")


def _array_rows(path: str, content: bytes) -> Iterator[Row | Refusal]:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(str(_bad_encoding(path, line, error))) from None
    decoder = json.JSONDecoder()
    position, counted, line = text.index("[") + 1, 0, 1
    while True:
        position = _skip_space(text, position)
        line += text.count("\n", counted, position)
        counted = position
        if text[position : position + 1] == "]":
            return
        try:
            _, end = decoder.raw_decode(text, position)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path}:{line}: this element of the JSON list is not JSON: {error}") from None
        yield _json_row(path, line, text[position:end])
        position = _skip_space(text, end)
        if text[position : position + 1] not in (",", "]") or not text[position:]:
            raise UserError(f"{path}:{line}: the JSON list does not go on after this element; write , or ]")
        position += text[position] == ","


def _skip_space(text: str, position: int) -> int:
    while position < len(text) and text[position] in " \t\r\n":
        position += 1
    return position


def _csv_rows(path: str, content: bytes, *, delimiter: str) -> Iterator[Row | Refusal]:
    csv.field_size_limit(CSV_FIELD_LIMIT)
    # Bytes that are not UTF-8 become lone surrogates, so that only their own rows are refused.
    text = content.decode("utf-8-sig", errors="surrogateescape")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        header = next(reader, [])
    except csv.Error as error:
        raise UserError(f"{path}:1: the header is not CSV: {error}; write one name for each column") from None
    if len(set(header)) < len(header) or not all(name.strip() for name in header):
        raise UserError(f"{path}:1: the header needs one name for each column, each once; it is {header}")
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield Refusal(path, line, "unreadable", f"not CSV: {error}")
            continue
        if cells:
            yield _csv_row(path, line, header, cells)


def _csv_row(path: str, line: int, header: list[str], cells: list[str]) -> Row | Refusal:
    if len(cells) != len(header):
        reason = f"{len(cells)} columns where the header has {len(header)}; put text with commas between quotes"
        return Refusal(path, line, "unreadable", reason)
    try:
        "".join(cells).encode()
    except UnicodeEncodeError:
        return Refusal(path, line, "unreadable", "not UTF-8; save the file as UTF-8")
    return Row(path, line, dict(zip(header, cells, strict=True)))


def _parquet_rows(path: str, content: bytes) -> Iterator[Row | Refusal]:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(pyarrow.BufferReader(content))
    except (pyarrow.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path}: the Parquet file is damaged ({reason}); fetch or write it again") from None
    number = 0
    for batch in table.to_batches():
        for values in batch.to_pylist():
            number += 1
            yield Row(path, number, values)
