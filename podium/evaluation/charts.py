"""Draw small charts as SVG text: no script, no font, no library; colours come from the page's style sheet.

By hand rather than through a chart library: a chart is 2 to 10 kB, follows the page's light or dark colours, and the
image carries no renderer. Every text is escaped; every mark has a title that a pointer shows and a reader can hear.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

from podium.evaluation.wording import Write, number, percent

Point = tuple[float, float]

WIDTH, HEIGHT = 380, 250
# Above the plot stand what the y axis shows, and the legend.
LEFT, RIGHT, TOP, BOTTOM = 48, 14, 34, 40
MAX_POINTS = 240
SMOOTH_FROM = 30


@dataclass(frozen=True)
class Axis:
    """One direction of a chart: its label, its range in data units, where its pixels begin and end."""

    label: str
    low: float
    high: float
    start: float
    end: float
    write: Write = number

    def at(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self, about: int = 5) -> list[float]:
        """Round numbers inside the range, about so many."""
        step = _round_step((self.high - self.low) / about)
        first = math.ceil(self.low / step - 1e-9)
        return [round(n * step, 12) for n in range(first, math.floor(self.high / step + 1e-9) + 1)]


@dataclass(frozen=True)
class Series:
    """A named line; `style` is the class that colours it."""

    name: str
    points: Sequence[Point]
    style: str = "a"


@dataclass
class Chart:
    """An SVG under construction; `describe` is what a screen reader says instead of it."""

    x: Axis
    y: Axis
    describe: str
    height: int = HEIGHT
    parts: list[str] = field(default_factory=list)

    def add(self, mark: str) -> None:
        self.parts.append(mark)

    def render(self) -> str:
        frame = [*_y_axis(self.y), *_x_axis(self.x, self.height - BOTTOM)]
        if self.y.label:
            frame.append(f'<text class="label" x="4" y="10">{escape(self.y.label)}</text>')
        return (
            f'<svg viewBox="0 0 {WIDTH} {self.height}" role="img" aria-label="{escape(self.describe)}">'
            + "".join(frame + self.parts)
            + "</svg>"
        )


def x_axis(label: str, values: Sequence[float], write: Write = number, *, pad: float = 0.0) -> Axis:
    low, high = _range(values, pad)
    return Axis(label, low, high, LEFT, WIDTH - RIGHT, write)


def y_axis(label: str, values: Sequence[float], write: Write = number, *, pad: float = 0.06) -> Axis:
    low, high = _range(values, pad)
    return Axis(label, low, high, HEIGHT - BOTTOM, TOP, write)


def lines(series: Sequence[Series], *, x: str, y: str, write: Write = number) -> str:
    """Draw lines over a common x; a legend names them where there are several.

    A long line is thinned to bucket means and drawn pale behind its running mean: what a step reports is noisy.
    """
    series = [Series(one.name, thin(one.points), one.style) for one in series]
    points = [point for one in series for point in one.points]
    describe = f"{y} over {x}: " + "; ".join(_course(one, write) for one in series)
    chart = Chart(x_axis(x, [p[0] for p in points]), y_axis(y, [p[1] for p in points], write), describe)
    for one in series:
        title = f"<title>{escape(one.name)}</title>"
        if len(one.points) == 1:
            px, py = one.points[0]
            chart.add(f'<circle class="fill-{one.style}" cx="{chart.x.at(px):.1f}" cy="{chart.y.at(py):.1f}" r="3"/>')
        pale = " pale" if len(one.points) > SMOOTH_FROM else ""
        chart.add(f'<polyline class="line line-{one.style}{pale}" points="{_path(chart, one.points)}"/>')
        path = _path(chart, smooth(one.points))
        chart.add(f'<polyline class="line line-{one.style}" points="{path}">{title}</polyline>')
    if len(series) > 1:
        chart.add(_legend([(one.name, one.style) for one in series]))
    return chart.render()


def trail(points: Sequence[Point], *, x: str, y: str) -> str:
    """Draw a path through a plane, pale at its start and full at its end."""
    points = thin(points, 80)
    chart = Chart(
        x_axis(x, [p[0] for p in points], pad=0.04),
        y_axis(y, [p[1] for p in points]),
        f"{y} against {x}, from {number(points[0][1])} at {number(points[0][0])} "
        f"to {number(points[-1][1])} at {number(points[-1][0])}",
    )
    chart.add(f'<polyline class="line faint" points="{_path(chart, points)}"/>')
    for index, (px, py) in enumerate(points):
        strength = 0.2 + 0.8 * (index / max(len(points) - 1, 1))
        where = f'cx="{chart.x.at(px):.1f}" cy="{chart.y.at(py):.1f}"'
        title = f"<title>{number(px)}, {number(py)}</title>"
        chart.add(f'<circle class="fill-b" {where} r="3.2" opacity="{strength:.2f}">{title}</circle>')
    return chart.render()


def histogram(edges: Sequence[float], counts: Sequence[float], *, x: str, y: str, below: str, above: str) -> str:
    """Draw counts per bin; bins below zero have one colour, bins above another, and a legend says what they mean."""
    chart = Chart(
        x_axis(x, edges),
        y_axis(y, [0.0, max(counts, default=1) or 1]),
        f"histogram of {x}: {sum(c for e, c in zip(edges, counts, strict=False) if e < 0)} {below}, "
        f"{sum(c for e, c in zip(edges, counts, strict=False) if e >= 0)} {above}",
    )
    for low, high, count in zip(edges, edges[1:], counts, strict=False):
        left, right, top = chart.x.at(low), chart.x.at(high), chart.y.at(count)
        size = f'x="{left + 0.5:.1f}" y="{top:.1f}" width="{right - left - 1:.1f}" height="{chart.y.at(0) - top:.1f}"'
        title = f"<title>{number(low)} to {number(high)}: {count}</title>"
        chart.add(f'<rect class="fill-{"bad" if high <= 0 else "good"}" {size}>{title}</rect>')
    if min(edges) < 0 < max(edges):
        chart.add(_vertical(chart, 0.0))
    chart.add(_legend([(below, "bad"), (above, "good")]))
    return chart.render()


def reliability(bins: Sequence[Mapping[str, Any]]) -> str:
    """Draw how often a model is right over how sure it is, with intervals; the diagonal is perfect calibration."""
    filled = [row for row in bins if row["count"]]
    chart = Chart(
        Axis("how sure the reward model is, %", 0.5, 1.0, LEFT, WIDTH - RIGHT, percent),
        Axis("how often it is right, % of pairs", 0.0, 1.0, HEIGHT - BOTTOM, TOP, percent),
        "calibration: "
        + "; ".join(f"sure {percent(r['confidence'])}, right {percent(r['accuracy'])} of {r['count']}" for r in filled),
    )
    corners = (chart.x.at(0.5), chart.y.at(0.5), chart.x.at(1.0), chart.y.at(1.0))
    chart.add('<line class="rule" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/>'.format(*corners))
    most = max((row["count"] for row in filled), default=1)
    for row in filled:
        x, y = chart.x.at(row["confidence"]), chart.y.at(row["accuracy"])
        low, high = chart.y.at(row["accuracy_low"]), chart.y.at(row["accuracy_high"])
        radius = 2.5 + 4.5 * math.sqrt(row["count"] / most)
        words = f"{row['count']} pairs: sure {percent(row['confidence'])}, right {percent(row['accuracy'])}"
        chart.add(f'<line class="error" x1="{x:.1f}" y1="{low:.1f}" x2="{x:.1f}" y2="{high:.1f}"/>')
        chart.add(f'<circle class="fill-b" cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}"><title>{words}</title></circle>')
    return chart.render()


def intervals(rows: Sequence[tuple[str, Mapping[str, Any], str]], *, x: str, middle: float, write: Write) -> str:
    """Draw one estimate with its interval per row, (label, estimate, style), beside a line at `middle`."""
    known = [row for row in rows if row[1]["value"] is not None]
    ends = [middle] + [row[1][key] for row in known for key in ("value", "low", "high") if row[1][key] is not None]
    top = 6
    height = top + BOTTOM + 46 * len(known)
    low, high = _range(ends, 0.06)
    chart = Chart(
        Axis(x, low, high, 14, WIDTH - RIGHT, write),
        Axis("", 0, 1, height - BOTTOM, top, lambda _: ""),
        f"{x}: " + "; ".join(f"{label} {write(result['value'])}" for label, result, _ in known),
        height,
    )
    chart.add(_vertical(chart, middle, top))
    for index, (label, result, style) in enumerate(known):
        y = top + 46 * index + 32
        if result["low"] is not None:
            left, right = chart.x.at(result["low"]), chart.x.at(result["high"])
            chart.add(f'<line class="error thick line-{style}" x1="{left:.1f}" y1="{y}" x2="{right:.1f}" y2="{y}"/>')
        x_at = chart.x.at(result["value"])
        chart.add(f'<circle class="fill-{style}" cx="{x_at:.1f}" cy="{y}" r="5"/>')
        chart.add(f'<text class="strong" x="14" y="{y - 12}">{escape(label)}: {escape(write(result["value"]))}</text>')
    return chart.render()


def thin(points: Sequence[Point], most: int = MAX_POINTS) -> list[Point]:
    """Replace runs of points by their means so that at most `most` remain."""
    points = list(points)
    size = math.ceil(len(points) / most)
    if size <= 1:
        return points
    runs = [points[start : start + size] for start in range(0, len(points), size)]
    return [(sum(x for x, _ in run) / len(run), sum(y for _, y in run) / len(run)) for run in runs]


def smooth(points: Sequence[Point]) -> list[Point]:
    """Average each point with its neighbours within a twentieth of the line on either side; short lines stay."""
    points = list(points)
    reach = len(points) // 20 if len(points) > SMOOTH_FROM else 0
    result = []
    for place, (x, _) in enumerate(points):
        # The window shrinks on both sides alike near the ends: a lopsided one would bend a rising line.
        half = min(reach, place, len(points) - 1 - place)
        near = [y for _, y in points[place - half : place + half + 1]]
        result.append((x, sum(near) / len(near)))
    return result


def _path(chart: Chart, points: Sequence[Point]) -> str:
    return " ".join(f"{chart.x.at(x):.1f},{chart.y.at(y):.1f}" for x, y in points)


def _range(values: Sequence[float], pad: float) -> tuple[float, float]:
    low, high = min(values, default=0.0), max(values, default=1.0)
    if high - low <= 1e-12 * max(abs(low), abs(high), 1e-300):
        room = abs(high) * 0.1 or 1.0
        return low - room, high + room
    room = (high - low) * pad
    # A count or a length that starts at zero keeps zero as its floor.
    return (low if low == 0 else low - room), high + room


def _round_step(raw: float) -> float:
    base = 10.0 ** math.floor(math.log10(raw))
    return float(next(step * base for step in (1, 2, 2.5, 5, 10) if step * base >= raw * (1 - 1e-9)))


def _y_axis(axis: Axis) -> list[str]:
    parts = []
    for tick in axis.ticks(4):
        y, words = axis.at(tick), escape(axis.write(tick))
        if words:
            parts.append(f'<line class="grid" x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}"/>')
            parts.append(f'<text x="{LEFT - 6}" y="{y + 3.5:.1f}" text-anchor="end">{_short(words)}</text>')
    return parts


def _x_axis(axis: Axis, floor: float) -> list[str]:
    parts = [f'<line class="axis" x1="{axis.start}" y1="{floor}" x2="{axis.end}" y2="{floor}"/>']
    for tick in axis.ticks(5):
        x = axis.at(tick)
        anchor = "end" if x > axis.end - 12 else "middle"
        words = _short(escape(axis.write(tick)))
        parts.append(f'<text x="{x:.1f}" y="{floor + 15}" text-anchor="{anchor}">{words}</text>')
    middle = (axis.start + axis.end) / 2
    parts.append(f'<text class="label" x="{middle}" y="{floor + 32}" text-anchor="middle">{escape(axis.label)}</text>')
    return parts


def _short(words: str) -> str:
    """Drop zeros that a tick does not need: 0.500 becomes 0.5, 20.0 % becomes 20 %."""
    return re.sub(r"\.(?!\d)", "", re.sub(r"(\.\d*?)0+(?!\d)", r"\1", words))


def _vertical(chart: Chart, value: float, top: float = TOP) -> str:
    x = chart.x.at(value)
    return f'<line class="rule" x1="{x:.1f}" y1="{top}" x2="{x:.1f}" y2="{chart.height - BOTTOM}"/>'


def _legend(entries: Sequence[tuple[str, str]]) -> str:
    parts, x = [], float(LEFT + 6)
    for name, style in entries:
        parts.append(f'<rect class="fill-{style}" x="{x:.0f}" y="{TOP - 16}" width="9" height="9" rx="2"/>')
        parts.append(f'<text x="{x + 13:.0f}" y="{TOP - 8}">{escape(name)}</text>')
        x += 28 + 5.8 * len(name)
    return "".join(parts)


def _course(one: Series, write: Write) -> str:
    if not one.points:
        return f"{one.name} empty"
    return f"{one.name} from {write(one.points[0][1])} to {write(one.points[-1][1])}"
