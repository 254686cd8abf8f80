"""Write figures for people: the same digits in the report, the summary and the terminal."""

from collections.abc import Callable, Mapping
from typing import Any

Write = Callable[..., str]  # (value, like=None) -> text

MISSING = "–"
MINUS = "\u2212"


def number(value: float | None, like: float | None = None) -> str:
    """Write about three significant digits, with no more than four places: 0.0123, 4.57, 128, -0.500.

    With `like`, write as many places as that number gets, so that an estimate and its interval line up.
    """
    if value is None:
        return MISSING
    size = abs(value if like is None else like)
    if max(size, abs(value)) >= 1e6:
        shown = f"{value:.2e}"
    else:
        # Four places even where they keep fewer digits: finer differences mean nothing here.
        shown = f"{value:.{0 if size >= 100 else 1 if size >= 10 else 2 if size >= 1 else 3 if size >= 0.1 else 4}f}"
    return shown.replace("-", MINUS) if float(shown) else "0"


def signed(value: float | None, like: float | None = None) -> str:
    """Write a change with its sign."""
    shown = number(value, like)
    return f"+{shown}" if value is not None and value > 0 and shown != "0" else shown


def percent(value: float | None, like: float | None = None) -> str:
    """Write a share as a percentage; `like` is there because all writers take it."""
    return MISSING if value is None else f"{100 * value:.1f} %".replace("-", MINUS)


def difference(value: float | None, like: float | None = None) -> str:
    """Write a difference of shares, in percentage points."""
    return MISSING if value is None else f"{100 * value:+.1f} points".replace("-", MINUS).replace("+0.0", "0.0")


def duration(seconds: float) -> str:
    """Write a time as a reader says it: 42 s, 3 min 20 s, 2 h 5 min."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def interval(estimate: Mapping[str, Any], write: Write = number) -> str:
    """Write the interval alone, in square brackets, without repeating the unit; nothing where there is none."""
    if estimate["low"] is None:
        return ""
    ends = (write(estimate[end], _scale(estimate)) for end in ("low", "high"))
    low, high = (end.removesuffix(" %").removesuffix(" points") for end in ends)
    return f"[{low}, {high}]"


def estimate(result: Mapping[str, Any], write: Write = number) -> str:
    """Write a value followed by its interval."""
    return f"{write(result['value'], _scale(result))} {interval(result, write)}".strip()


def _scale(result: Mapping[str, Any]) -> float | None:
    """Return what decides the places: the value, or the interval's width where that is larger."""
    if result["low"] is None:
        return None
    return max(abs(float(result["value"])), float(result["high"] - result["low"]))
