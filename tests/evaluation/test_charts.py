"""Charts place marks where the numbers are, in well-formed, escaped SVG."""

import math
import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podium.evaluation import charts
from podium.evaluation.wording import number, percent

NUMBERS = st.floats(-1e6, 1e6, allow_nan=False).map(lambda x: round(x, 6))


def points_of(svg: str) -> list[tuple[float, float]]:
    """Pixels of the last polyline."""
    last = ElementTree.fromstring(svg).findall("polyline")[-1].attrib["points"]
    return [tuple(map(float, pair.split(","))) for pair in last.split()]


def test_a_line_rises_where_the_figures_rise() -> None:
    found = points_of(charts.lines([charts.Series("s", [(0, 0.0), (1, 2.0), (2, 1.0)])], x="x", y="y"))
    xs, ys = zip(*found, strict=True)
    assert xs[1] - xs[0] == pytest.approx(xs[2] - xs[1], abs=0.2)
    assert ys[1] < ys[2] < ys[0], "pixels count downwards"
    assert (ys[0] - ys[2]) * 2 == pytest.approx(ys[0] - ys[1], abs=0.3)


@given(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=400))
def test_any_line_is_well_formed_and_stays_in_its_frame(points: list[tuple[float, float]]) -> None:
    svg = charts.lines([charts.Series("<a>&", points)], x="x", y="y")
    for x, y in points_of(svg):
        assert -0.1 <= x <= charts.WIDTH + 0.1 and -0.1 <= y <= charts.HEIGHT + 0.1
    assert len(points_of(svg)) <= charts.MAX_POINTS


@given(NUMBERS, st.floats(1e-6, 1e6))
def test_ticks_are_round_inside_the_range_and_few(low: float, width: float) -> None:
    axis = charts.Axis("x", low, low + width, 0, 100)
    ticks = axis.ticks()
    assert 1 <= len(ticks) <= 9
    assert all(low - 1e-6 * width - 1e-9 <= tick <= low + width * (1 + 1e-6) + 1e-9 for tick in ticks)
    if len(ticks) > 1:
        step = ticks[1] - ticks[0]
        lead = step / 10 ** math.floor(math.log10(step) + 1e-9)
        assert min(abs(lead - nice) for nice in (1, 2, 2.5, 5, 10)) < 1e-2


def test_thin_and_smooth_keep_the_mean_and_the_line() -> None:
    straight = [(float(x), 2.0 * x + 1) for x in range(1000)]
    thinned = charts.thin(straight)
    assert len(thinned) <= charts.MAX_POINTS
    assert all(y == pytest.approx(2 * x + 1) for x, y in thinned)
    assert charts.smooth(straight) == [(x, pytest.approx(y)) for x, y in straight]
    jagged = [(float(x), float(x % 2)) for x in range(100)]
    assert max(abs(y - 0.5) for _, y in charts.smooth(jagged)[10:-10]) < 0.1
    assert charts.smooth(jagged[:10]) == jagged[:10]


def test_histogram_bars_have_the_heights_of_their_counts() -> None:
    svg = charts.histogram([-1.0, 0.0, 1.0, 2.0], [2, 4, 0], x="x", y="pairs", below="bad", above="good")
    root = ElementTree.fromstring(svg)
    bars = [bar for bar in root.findall("rect") if bar.find("title") is not None]
    heights = [float(bar.attrib["height"]) for bar in bars]
    assert heights[0] * 2 == pytest.approx(heights[1], abs=0.2) and heights[2] == 0
    assert [bar.attrib["class"] for bar in bars] == ["fill-bad", "fill-good", "fill-good"]
    assert "2 bad, 4 good" in root.attrib["aria-label"]


def test_reliability_puts_a_perfect_bin_on_the_diagonal() -> None:
    row = {"count": 9, "confidence": 0.8, "accuracy": 0.8, "accuracy_low": 0.5, "accuracy_high": 0.9}
    empty = {"count": 0, "confidence": None, "accuracy": None, "accuracy_low": None, "accuracy_high": None}
    root = ElementTree.fromstring(charts.reliability([row, empty]))
    (circle,) = root.findall("circle")
    (rule,) = (line for line in root.findall("line") if line.attrib["class"] == "rule")
    x, y = float(circle.attrib["cx"]), float(circle.attrib["cy"])
    x1, y1, x2, y2 = (float(rule.attrib[key]) for key in ("x1", "y1", "x2", "y2"))
    assert y == pytest.approx(y1 + (x - x1) / (x2 - x1) * (y2 - y1), abs=0.2)


def test_intervals_leave_out_what_was_not_measured() -> None:
    known = {"value": 0.7, "low": 0.6, "high": 0.8}
    nothing = {"value": None, "low": None, "high": None}
    svg = charts.intervals([("model", known, "b"), ("rule", nothing, "a")], x="share", middle=0.5, write=percent)
    assert len(ElementTree.fromstring(svg).findall("circle")) == 1
    assert "model: 70.0 %" in svg and "rule" not in re.sub(r'class="[^"]*"', "", svg)


def test_trail_of_one_point_and_flat_lines_draw() -> None:
    assert len(ElementTree.fromstring(charts.trail([(0.0, 0.0)], x="x", y="y")).findall("circle")) == 1
    flat = charts.lines([charts.Series("s", [(1, 5.0), (2, 5.0)])], x="x", y="y", write=number)
    assert {y for _, y in points_of(flat)} == {points_of(flat)[0][1]}
