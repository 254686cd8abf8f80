"""Write a plan as one HTML file that needs no network: its tables, memory by kind and time by phase as pictures."""

from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

import jinja2
from markupsafe import Markup

from podium.evaluation.charts import BOTTOM, RIGHT, WIDTH, Axis, Chart
from podium.planning import table, wording
from podium.planning.results import NOT_MEASURED

Row = tuple[str, float, str]

_TOP, _EACH, _LEFT = 8, 40, 14


def html(plan: Mapping[str, Any]) -> str:
    """Render a plan; the same plan gives the same bytes."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("podium.planning"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {
        "size": wording.size,
        "seconds": wording.seconds,
        "operations": wording.operations,
        "share": wording.share,
        "phase": wording.phase,
        "bound": wording.bound,
        "change": wording.change,
        "hours": wording.hours,
        "money": wording.money,
    }
    return environment.get_template("plan.html.j2").render(
        plan=plan,
        mesh=table.mesh_text(plan["mesh"]),
        rollout=table.mesh_text(plan["rollout"]) if plan["rollout"] else None,
        memory=Markup(memory_chart(plan["memory"])),  # drawn here: every text in it is escaped
        time=Markup(time_chart(plan["phases"])),
        not_measured=NOT_MEASURED,
    )


def memory_chart(memory: Mapping[str, Any]) -> str:
    """Draw a bar for each kind of memory and for their sum, beside a line at what the chip has."""
    rows = [(name, float(count), "b") for name, count in memory["kinds"].items() if count]
    rows.append(("peak", float(memory["peak"]), "bad" if memory["peak"] > memory["limit"] else "a"))
    scaled = [(name, count / wording.GIB, style) for name, count, style in rows]
    texts = [wording.size(count) for _, count, _ in rows]
    return bars(scaled, texts, x="GiB of a chip", limit=memory["limit"] / wording.GIB)


def time_chart(phases: Sequence[Mapping[str, Any]]) -> str:
    """Draw the predicted seconds of each phase; a title tells the bound at peak."""
    rows = [(wording.phase(one["name"]), one["predicted"], "b") for one in phases]
    texts = [f"{wording.seconds(one['predicted'])} (at peak {wording.seconds(one['at_peak'])})" for one in phases]
    return bars(rows, texts, x="seconds of a step, predicted")


def bars(rows: Sequence[Row], texts: Sequence[str], *, x: str, limit: float | None = None) -> str:
    """Draw a horizontal bar per row, (label, value, style), its label and text above it."""
    most = max([value for _, value, _ in rows] + ([limit] if limit is not None else [])) or 1.0
    height = _TOP + _EACH * len(rows) + BOTTOM
    write: Callable[..., str] = lambda value, like=None: f"{value:g}"  # noqa: E731 - an axis takes a function
    chart = Chart(
        Axis(x, 0.0, most * 1.02, _LEFT, WIDTH - RIGHT, write),
        Axis("", 0, 1, height - BOTTOM, _TOP, lambda _: ""),
        f"{x}: " + "; ".join(f"{label} {text}" for (label, _, _), text in zip(rows, texts, strict=True)),
        height,
    )
    for place, ((label, value, style), text) in enumerate(zip(rows, texts, strict=True)):
        top = _TOP + _EACH * place
        width = chart.x.at(value) - chart.x.at(0)
        chart.add(f'<text class="strong" x="{_LEFT}" y="{top + 14}">{escape(label)}: {escape(text)}</text>')
        chart.add(
            f'<rect class="fill-{style}" x="{_LEFT}" y="{top + 19}" width="{max(width, 0.5):.1f}" height="12" rx="2">'
            f"<title>{escape(label)}: {escape(text)}</title></rect>"
        )
    if limit is not None:
        end = chart.x.at(limit)
        chart.add(f'<line class="rule" x1="{end:.1f}" y1="{_TOP}" x2="{end:.1f}" y2="{height - BOTTOM}"/>')
    return chart.render()
