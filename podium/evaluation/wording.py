"""Write figures for people: the same digits in the report, the summary and the terminal."""

from collections.abc import Mapping
from typing import Any

MISSING = "–"
MINUS = "\u2212"


def number(value: float | None) -> str:
    """Write about three significant digits, with no more than four places: 0.0123, 4.57, 128, -0.500."""
    if value is None:
        return MISSING
    size = abs(value)
    if size >= 1e6:
        shown = f"{value:.2e}"
    else:
        # Four places even where they keep fewer digits: finer differences mean nothing here.
        shown = f"{value:.{0 if size >= 100 else 1 if size >= 10 else 2 if size >= 1 else 3 if size >= 0.1 else 4}f}"
    return shown.replace("-", MINUS) if float(shown) else "0"


def signed(value: float | None) -> str:
    """Write a change with its sign."""
    return f"+{number(value)}" if value is not None and value > 0 else number(value)


def percent(value: float | None) -> str:
    """Write a share as a percentage."""
    return MISSING if value is None else f"{100 * value:.1f} %"


def interval(estimate: Mapping[str, Any], write: Any = number) -> str:
    """Write the interval alone, in square brackets; nothing where there is none."""
    if estimate["low"] is None:
        return ""
    return f"[{write(estimate['low'])}, {write(estimate['high'])}]"


def estimate(found: Mapping[str, Any], write: Any = number) -> str:
    """Write a value followed by its interval."""
    return f"{write(found['value'])} {interval(found, write)}".strip()
