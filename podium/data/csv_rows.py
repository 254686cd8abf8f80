"""Read the rows of CSV files as people and spreadsheets write them: the header tells what separates the columns."""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

from podium.data.rows import Refusal, Row, shown, unreadable
from podium.errors import UserError

# One field of a CSV file may be a whole conversation; the module's own limit is 128 kB.
FIELD_LIMIT = 2**30
DELIMITERS = (",", ";", "\t", "|")
_MARKS = {",": "commas", ";": "semicolons", "\t": "tabs"}
# The line with which Excel is told the delimiter.
_SEP = re.compile(r'"?sep=([,;|\t:^~])"?(?:\r\n|\r|\n|\Z)', re.IGNORECASE)
# What a row that a spreadsheet shows as blank is made of.
_BLANK = "".join(DELIMITERS) + ' "\r\n'
# What pandas calls the column without a name that it writes for the index.
INDEX = "Unnamed: 0"


@dataclass(frozen=True)
class _Table:
    """How a file's columns are separated and what they are called; a column without a name is "" and holds nothing."""

    path: str
    delimiter: str
    names: list[str]
    skips_blanks: bool


def csv_rows(path: str, content: bytes, *, delimiter: str) -> Iterator[Row | Refusal]:
    """Read UTF-8 text; `delimiter` counts unless another one, or a line sep=, separates more columns of the header.

    Raises:
        UserError: The header does not name each column once, or a quote that is opened is never closed.
    """
    csv.field_size_limit(FIELD_LIMIT)
    # Bytes that are not UTF-8 become lone surrogates, so that only their own rows are refused.
    text = content.decode(errors="surrogateescape")
    told = _SEP.match(text)
    start = told.end() if told else 0
    lines = io.StringIO(text[start:], newline="").readlines()
    first = next((number for number, line in enumerate(lines) if line.strip(_BLANK)), None)
    if first is None:
        raise UserError(f"{path}: the file is empty; write a header and a row for each record")
    before = first + (1 if told else 0)
    table, used = _table(path, lines[first:], before + 1, (told.group(1),) if told else (delimiter, *DELIMITERS))
    return _records(table, lines[first + used :], before + used)


def _table(path: str, lines: list[str], line: int, delimiters: tuple[str, ...]) -> tuple[_Table, int]:
    """Read the header; return what it says and how many lines it takes. The first of equal delimiters counts."""
    best: tuple[list[str], int, str] | None = None
    fault: csv.Error | None = None
    for delimiter in dict.fromkeys(delimiters):
        reader = csv.reader(iter(lines), delimiter=delimiter, strict=True, skipinitialspace=True)
        try:
            names = next(reader, [])
        except csv.Error as error:
            fault = fault or error
            continue
        if best is None or len(names) > len(best[0]):
            best = (names, reader.line_num, delimiter)
    if best is None:
        raise UserError(f"{path}:{line}: the header is not CSV: {fault}; write one name for each column") from None
    names, used, delimiter = best
    return _Table(path, delimiter, _named(path, line, names), _has_blanks(lines, delimiter)), used


def _has_blanks(lines: list[str], delimiter: str) -> bool:
    """Tell whether a blank follows every delimiter of the header, as some write CSV: then it belongs to no value."""
    names = next(csv.reader(iter(lines), delimiter=delimiter), [])[1:]
    return bool(names) and all(name.startswith(" ") and name.strip() for name in names)


def _named(path: str, line: int, names: list[str]) -> list[str]:
    """Return the names of the columns, blanks around them taken off. Raises UserError for one that is no name."""
    names = [" ".join(name.split()) for name in names]
    if not names[0] and any(names[1:]):
        names[0] = INDEX
    given = [name for name in names if name]
    if not given:
        raise UserError(f"{path}:{line}: the header needs one name for each column, each once; it has none")
    if len(set(given)) < len(given):
        twice = next(name for number, name in enumerate(given) if name in given[:number])
        raise UserError(
            f"{path}:{line}: the header needs one name for each column, each once; {shown(twice)} is given twice"
        )
    for name in given:
        if any("\ud800" <= character <= "\udfff" for character in name):
            raise UserError(f"{path}:{line}: the header is not UTF-8; save the file as UTF-8")
        if any(unicodedata.category(character) == "Cc" for character in name):
            raise UserError(
                f"{path}:{line}: the header has the column {shown(name)}; write names without control characters"
            )
    return names


def _records(table: _Table, lines: list[str], before: int) -> Iterator[Row | Refusal]:
    """Read the records of `lines`, of which the first is line `before` + 1 of the file."""
    reader = csv.reader(iter(lines), delimiter=table.delimiter, strict=True, skipinitialspace=table.skips_blanks)
    while True:
        start = reader.line_num
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if reader.line_num >= len(lines) and "unexpected end of data" in str(error):
                raise UserError(
                    f"{table.path}:{before + start + 1}: a quote that is opened in this record is never closed; close "
                    "it, and write a quote within quotes twice"
                ) from None
            yield from _lost(table.path, lines, range(start, reader.line_num), before, error)
            continue
        if any(cell.strip() for cell in cells):
            yield _row(table, before + start + 1, cells)


def _lost(path: str, lines: list[str], places: range, before: int, error: csv.Error) -> Iterator[Refusal]:
    """Refuse every line that a record with a wrong quote took with it."""
    first = before + places.start + 1
    yield unreadable(path, first, f"not CSV: {error}; write a quote within quotes twice")
    for place in places[1:]:
        if lines[place].strip():
            yield unreadable(path, before + place + 1, f"not CSV: a quote that line {first} opens runs over this line")


def _row(table: _Table, line: int, cells: list[str]) -> Row | Refusal:
    names = table.names
    if any(cell.strip() for cell in cells[len(names) :]) or any(names[len(cells) :]):
        mark = _MARKS.get(table.delimiter, table.delimiter)
        reason = f"{len(cells)} columns where the header has {len(names)}; put text with {mark} between quotes"
        return unreadable(table.path, line, reason)
    try:
        "".join(cells).encode()
    except UnicodeEncodeError:
        return unreadable(table.path, line, "not UTF-8; save the file as UTF-8")
    for number, (name, cell) in enumerate(zip(names, cells, strict=False), start=1):
        if not name and cell.strip():
            return unreadable(table.path, line, f"column {number} holds {shown(cell)} but has no name in the header")
    return Row(table.path, line, {name: cell for name, cell in zip(names, cells, strict=False) if name})
