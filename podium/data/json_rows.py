"""Read the rows of JSON: an object a line, objects over several lines, a list, or an object around one list."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import Any, NoReturn

from podium.data.demonstrations import DEMONSTRATION_FORMATS
from podium.data.formats import FORMATS
from podium.data.prompts import PROMPT_FORMATS
from podium.data.rows import Refusal, Row, listed, shown, unreadable
from podium.errors import UserError

# Deeper than any format of rows, and far from where Python's parser and printer give up.
MAX_DEPTH = 64
# Python reads no longer ones: that takes quadratic time.
MAX_DIGITS = 1000
_SPACE = re.compile(r"[ \t\r\n]*")
# Columns by which formats know a row: an object without any of them is no row.
_COLUMNS = {
    *(name for format in FORMATS.values() for name in (*format.columns, *format.optional)),
    *(name for format in DEMONSTRATION_FORMATS.values() for name in (*format.columns, *format.optional)),
    *(format.column for format in PROMPT_FORMATS.values()),
}
_SPEAKERS = {"role", "from", "author"}


def json_rows(path: str, content: bytes) -> Iterator[Row | Refusal]:
    """Read UTF-8 text. Raises UserError for a list, or an object around one, that is not JSON to its end."""
    if content.lstrip().startswith(b"["):
        text = _decoded(path, content)
        return _list_rows(path, text, _skip_space(text, 0), line=1)
    return _object_rows(path, content)


def parse(text: str) -> Any:
    """Parse strict JSON: no NaN, no key twice, no half characters, which no UTF-8 file can hold, no endless numbers.

    Raises:
        ValueError: The reason.
    """
    try:
        value = json.loads(
            text, parse_constant=_refuse_constant, parse_int=_integer, parse_float=_float, object_pairs_hook=_object
        )
        if "\\ud" in text or "\\uD" in text:
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ValueError(
            "half of a surrogate pair (\\ud800 to \\udfff) stands alone; write the whole character"
        ) from None
    except RecursionError:
        raise ValueError(f"nested too deeply, more than {MAX_DEPTH} levels") from None
    # As many brackets as levels are needed, so most texts need no closer look.
    if text.count("[") + text.count("{") > MAX_DEPTH and _depth(value) > MAX_DEPTH:
        raise ValueError(f"nested too deeply, more than {MAX_DEPTH} levels")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON; write null")


def _integer(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"a number of {len(digits)} digits; write it as a text")
    return int(digits)


def _float(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise ValueError(f"the number {digits[:20]} is too large; write it as a text")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for number, name in enumerate(names) if name in names[:number])
        raise ValueError(f"the key {shown(twice)} is given twice; keep one, or rename one")
    return result


def _depth(value: Any) -> int:
    level, depth = [value], 0
    while level:
        inner: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                inner += item.values()
            elif isinstance(item, list):
                inner += item
        depth += any(isinstance(item, dict | list) for item in level)
        level = inner
    return depth


def _row(path: str, line: int, text: str) -> Row | Refusal:
    try:
        value = parse(text)
    except ValueError as error:
        return unreadable(path, line, f"not JSON: {error}" if isinstance(error, json.JSONDecodeError) else str(error))
    if not isinstance(value, dict):
        return unreadable(path, line, f"a row is an object with named fields, not {type(value).__name__}")
    return Row(path, line, value)


def _object_rows(path: str, content: bytes) -> Iterator[Row | Refusal]:
    """Read an object a line; where that fails and the whole is objects one after another, read those."""
    rows = list(_lines(path, content))
    if any(isinstance(row, Refusal) for row in rows):
        rows = _sequence(path, content) or rows
    if len(rows) == 1 and isinstance(rows[0], Row) and not rows[0].values.keys() & _COLUMNS:
        return _wrapped(path, content.decode(), rows[0])
    return iter(rows)


def _lines(path: str, content: bytes) -> Iterator[Row | Refusal]:
    # Split at b"\n" only: str.splitlines also splits at U+2028 and others, which stand inside JSON strings.
    for number, line in enumerate(content.split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            text = line.decode()
        except UnicodeDecodeError as error:
            yield _bad_encoding(path, number, error)
        else:
            yield _row(path, number, text)


def _bad_encoding(path: str, line: int, error: UnicodeDecodeError) -> Refusal:
    byte = error.object[error.start]
    return unreadable(path, line, f"not UTF-8: byte 0x{byte:02x} at {error.start}; save the file as UTF-8")


def _sequence(path: str, content: bytes) -> list[Row | Refusal] | None:
    """Read objects one after another, over several lines or with commas between; None where the text is not that."""
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return None
    rows: list[Row | Refusal] = []
    position, counted, line = _skip_space(text, 0), 0, 1
    while position < len(text):
        line += text.count("\n", counted, position)
        counted = position
        end = _end(text, position)
        if end is None or text[position] != "{":
            return None
        rows.append(_row(path, line, text[position:end]))
        position = _skip_space(text, end)
        if text.startswith(",", position):
            position = _skip_space(text, position + 1)
    return rows


def _skip_space(text: str, position: int) -> int:
    result = _SPACE.match(text, position)
    return result.end() if result else position


# It finds where a value ends, and leaves what is in it to `parse`.
_SCANNER = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=str, object_pairs_hook=len)


def _end(text: str, position: int) -> int | None:
    """Return where the JSON value at a position ends; None where there is none."""
    try:
        return _SCANNER.raw_decode(text, position)[1]
    except (ValueError, RecursionError):
        return None


def _decoded(path: str, content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(str(_bad_encoding(path, line, error))) from None


def _list_rows(path: str, text: str, start: int, *, line: int, inside: bool = False) -> Iterator[Row | Refusal]:
    """Read the elements of the list at `start`; unless it is `inside` an object, nothing may follow it."""
    position, counted = start + 1, start
    while True:
        position = _skip_space(text, position)
        line += text.count("\n", counted, position)
        counted = position
        if text.startswith("]", position):
            break
        end = _end(text, position)
        if end is None:
            raise UserError(f"{path}:{line}: this element of the JSON list is not JSON: {_fault(text, position)}")
        yield _row(path, line, text[position:end])
        position = _skip_space(text, end)
        if not text.startswith((",", "]"), position):
            raise UserError(f"{path}:{line}: the JSON list does not go on after this element; write , or ]")
        position += text[position] == ","
    after = _skip_space(text, position + 1)
    if after < len(text) and not inside:
        line += text.count("\n", counted, after)
        raise UserError(f"{path}:{line}: text follows the end of the JSON list; write one list, or one object a line")


def _fault(text: str, position: int) -> str:
    try:
        _SCANNER.raw_decode(text, position)
    except RecursionError:
        return f"nested too deeply, more than {MAX_DEPTH} levels"
    except ValueError as error:
        return str(error)
    return "not JSON"


def _wrapped(path: str, text: str, row: Row) -> Iterator[Row | Refusal]:
    """Read the one list of rows in an object that is itself no row, as many tools write it."""
    lists = [name for name, value in row.values.items() if _holds_rows(value)]
    if not lists:
        return iter([row])
    if len(lists) > 1:
        keys = listed(list(row.values))
        raise UserError(f"{path}: is one object with the keys {keys}; write one of the lists {listed(lists)} alone")
    position = _skip_space(text, _skip_space(text, 0) + 1)
    while True:
        key, position = json.JSONDecoder().raw_decode(text, position)
        position = _skip_space(text, _skip_space(text, position) + 1)
        if key == lists[0]:
            return _list_rows(path, text, position, line=text.count("\n", 0, position) + 1, inside=True)
        position = _skip_space(text, (_end(text, position) or len(text)))
        position = _skip_space(text, position + 1)


def _holds_rows(value: Any) -> bool:
    """Tell whether a value is a list of objects other than the messages of a conversation."""
    if not isinstance(value, list) or not value:
        return False
    return all(isinstance(item, dict) and not item.keys() & _SPEAKERS for item in value)
