"""What every reader of files yields: rows, and refusals of what cannot be one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_LONGEST_SHOWN = 80


@dataclass(frozen=True)
class Row:
    """One row of a file; `line` is where it starts (in Parquet and Arrow: the number of the row)."""

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


def unreadable(file: str, line: int, reason: str) -> Refusal:
    """Return the refusal of a row that cannot be read at all."""
    return Refusal(file, line, "unreadable", reason)


def shown(text: str) -> str:
    """Return a name from a file as a message shows it: quoted, without control characters, not too long."""
    written = repr(text)
    return written if len(written) <= _LONGEST_SHOWN else f"{written[: _LONGEST_SHOWN - 3]}..."


def listed(names: list[str]) -> str:
    """Return names from a file as a message lists them."""
    first = ", ".join(shown(name) for name in names[:8])
    return f"{first}, ..." if len(names) > 8 else first
