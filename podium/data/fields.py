"""Checks of single fields: text, ranks, choices. Each returns the canonical value or raises Refused."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

CHOICES = {"0": 0, "1": 1, "a": 0, "b": 1, "tie": None}


class Refused(ValueError):
    """A row that cannot be used; `kind` groups reasons in the report."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


def text(value: Any, name: str) -> str:
    """Return a text; CRLF becomes LF, the rest stays as it is, except that a text of white space only is refused."""
    if not isinstance(value, str):
        raise Refused("type", f"{name} is {kind_of(value)}; write a text")
    if not value.strip():
        raise Refused("empty", f"{name} is empty; write a text or leave the row out")
    return value.replace("\r\n", "\n")


def whole_number(value: Any, name: str) -> int:
    """Return an integer; 2.0, "2" and "2.0" count as 2, true does not."""
    if isinstance(value, str) and (digits := re.fullmatch(r"([+-]?[0-9]{1,9})(?:\.0+)?", value.strip())):
        return int(digits[1])
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value // 1:
        raise Refused("type", f"{name} is {short(value)}; write a whole number")
    return int(value)


def number(value: Any, name: str) -> float:
    """Return a finite number; a text that spells one counts."""
    try:
        result = float("nan") if isinstance(value, bool | bytes) else float(value)
    except (TypeError, ValueError, OverflowError):
        result = float("nan")
    if result - result != 0:
        raise Refused("type", f"{name} is {short(value)}; write a finite number")
    return result


def whole_numbers(value: Any, name: str) -> list[int]:
    """Return a list of integers."""
    if not isinstance(value, list | tuple):
        raise Refused("type", f"{name} is {kind_of(value)}; write a list of whole numbers")
    return [whole_number(item, f"{name}[{place}]") for place, item in enumerate(value)]


def weight(value: Any, name: str) -> float:
    """Return how much a comparison counts, which is not less than nothing."""
    result = number(value, name)
    if result < 0:
        raise Refused("type", f"{name} is {short(value)}; write 0 or more")
    return result


def label(value: Any, name: str) -> str:
    """Return a short text that names something; a number counts as its digits."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise Refused("type", f"{name} is {kind_of(value)}; write a text")
    return str(value)


def choice(value: Any, name: str = "choice") -> list[int]:
    """Return the ranks of two candidates from 0, 1, a, b or tie."""
    key = str(value).strip().lower().removeprefix("response_").removeprefix("candidate_")
    # A spreadsheet or pandas writes whole numbers as 1.0 where a cell of the column is empty.
    key = re.sub(r"\A([0-9]+)\.0+\Z", r"\1", key)
    if key not in CHOICES:
        raise Refused("choice", f"{name} is {short(value)}; write 0 for the first candidate, 1 for the second, or tie")
    best = CHOICES[key]
    return [1, 1] if best is None else [1 + (best == 1), 1 + (best == 0)]


def dense_ranks(values: Sequence[int]) -> list[int]:
    """Return the ranks as 1, 2, 3, ... without gaps, in the same order and with the same ties."""
    places = {value: place for place, value in enumerate(sorted(set(values)), start=1)}
    return [places[value] for value in values]


def json_list(value: Any) -> Any:
    """Return the list that a cell of a table spells as JSON; any other value as it is."""
    if not isinstance(value, str) or not value.lstrip().startswith("["):
        return value
    try:
        matches = json.loads(value)
        # Half a character, which the text may spell, is none: no file can hold it.
        json.dumps(matches, ensure_ascii=False).encode()
        return matches
    except (ValueError, RecursionError):
        return value


def kind_of(value: Any) -> str:
    names = {type(None): "missing", bool: "true or false", dict: "an object", list: "a list", str: "a text"}
    return names.get(type(value), "a number" if isinstance(value, int | float) else type(value).__name__)


def short(value: Any) -> str:
    try:
        written = json.dumps(value, ensure_ascii=False, default=str)
    except (RecursionError, TypeError, ValueError):
        return kind_of(value)
    return written if len(written) <= 40 else written[:37] + "..."
