"""Read rows from JSON, CSV, Parquet and Arrow files, compressed or not, and keep the line of each."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator

from podium.data.arrow_rows import arrow_rows, is_arrow, parquet_rows
from podium.data.csv_rows import csv_rows
from podium.data.files import expand, read_content
from podium.data.json_rows import json_rows
from podium.data.packed import refuse_other_kind, unpacked
from podium.data.rows import Refusal, Row
from podium.errors import UserError

__all__ = ["Refusal", "Row", "expand", "parse_rows", "read_content", "read_rows"]

_TABLES = {".csv": ",", ".tsv": "\t"}
_BOM = codecs.BOM_UTF8
# By their first bytes; UTF-32's begin as UTF-16's do. Without a mark, the zero bytes of ASCII tell.
_WIDE = (
    (rb"\xff\xfe\x00\x00", "utf-32"),
    (rb"\x00\x00\xfe\xff", "utf-32"),
    (rb"\xff\xfe|\xfe\xff", "utf-16"),
    (rb"(?:[\t\n\r -~]\x00){2}", "utf-16-le"),
    (rb"(?:\x00[\t\n\r -~]){2}", "utf-16-be"),
)
# What is named a table is one, unless it begins as JSON does: an object, or a list of them.
_JSON_ROW = re.compile(rb'\s*(?:\[\s*)?\{\s*"')


def read_rows(path: str) -> Iterator[Row | Refusal]:
    """Read a file of any accepted type; a row that is not readable comes back as a refusal."""
    return parse_rows(path, read_content(path))


def parse_rows(path: str, content: bytes) -> Iterator[Row | Refusal]:
    """Read the rows of a file's content.

    The content tells the type (compression, Parquet, Arrow, JSON), for CSV the name.

    Raises:
        UserError: It holds no rows, is of another kind, is damaged, or unfolds too far.
    """
    name, content = unpacked(path, content)
    name = name.lower()
    if content.startswith(b"PAR1"):
        return parquet_rows(path, content)
    if is_arrow(content):
        return arrow_rows(path, content)
    refuse_other_kind(path, content)
    content = _utf8(path, content).removeprefix(_BOM)
    if not content.strip():
        raise UserError(
            f"{path}: the file is empty; write one JSON object a line, a CSV file with a header, or Parquet"
        )
    ending = name[name.rfind(".") :]
    if ending in _TABLES and not _JSON_ROW.match(content):
        return csv_rows(path, content, delimiter=_TABLES[ending])
    if ending in (".jsonl", ".ndjson", ".json") or content.lstrip().startswith((b"[", b"{")):
        return json_rows(path, content)
    raise UserError(f"{path}: cannot tell the type of this file; name it .jsonl, .json, .csv, .tsv or .parquet")


def _utf8(path: str, content: bytes) -> bytes:
    """Return text as UTF-8, where it is UTF-16 or UTF-32, as spreadsheets and PowerShell write it."""
    encoding = next((name for start, name in _WIDE if re.match(start, content)), None)
    if encoding is None:
        return content
    try:
        return content.decode(encoding).encode()
    except UnicodeError as error:
        name = encoding[:6].upper()
        raise UserError(f"{path}: is {name}, but damaged ({error}); save the file as UTF-8") from None
