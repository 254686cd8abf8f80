"""Print a plan on the terminal."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from podium.planning.results import NOT_MEASURED
from podium.planning.wording import bound, change, hours, money, operations, phase, seconds, share, size

# Smaller exchanges of a phase are left to --json.
_SHOWN_EXCHANGES = 4


def show(plan: Mapping[str, Any]) -> None:
    """Print a plan."""
    lines = [*_head(plan), "", *_memory(plan)]
    if not plan["fits"]:
        lines += ["", *advice(plan)]
    lines += ["", *_phases(plan), "", *_exchanges(plan), "", *_run(plan), _grace(plan)]
    lines += ["", *(f"Note: {note}" for note in plan["notes"])]
    print("\n".join(lines), file=sys.stdout)


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lay rows out in columns, the first to the left, the others to the right; the first row is their heads."""
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def mesh_text(sizes: Mapping[str, int]) -> str:
    """Write the axes that are cut: fsdp 4 x tensor 4."""
    cut = [f"{name} {count}" for name, count in sizes.items() if count > 1]
    return " x ".join(cut) or "one device"


def _head(plan: Mapping[str, Any]) -> list[str]:
    chips = f"{plan['chips']} chips" if plan["chips"] > 1 else "1 chip"
    hosts = f"{plan['hosts']} hosts" if plan["hosts"] > 1 else "1 host"
    lines = [
        f"{plan['stage']} of {plan['model']}",
        f"on {plan['topology']}: {chips}, {hosts}; mesh {mesh_text(plan['mesh'])}; "
        f"{plan['rows']} rows a step in micro-batches of {plan['rows'] // plan['micro_batches']}",
    ]
    if plan["chosen"]:
        lines.append(f"platform.mesh auto: {plan['chosen']}")
    if plan["rollout"]:
        lines.append(f"answers in the layout {mesh_text(plan['rollout'])}")
    if plan["hops"]:
        for words, figures in (("mean hops to the next chip of a ring", "hops"), ("links of an exchange", "links")):
            lines.append(f"{words}: {', '.join(f'{name} {value:.3g}' for name, value in plan[figures].items())}")
    return lines


def _memory(plan: Mapping[str, Any]) -> list[str]:
    memory = plan["memory"]
    how = "as the compiler laid it out" if plan["compiled"] else "estimated from shapes"
    rows = [("bytes of a chip", how)]
    rows += [(name, size(count)) for name, count in memory["kinds"].items() if count]
    rows.append(("peak", f"{size(memory['peak'])} of {size(memory['limit'])}"))
    verdict = "fits" if plan["fits"] else "DOES NOT FIT"
    return [*columns(rows), f"{verdict}: {share(memory['peak'] / memory['limit'])} of a chip's memory"]


def advice(plan: Mapping[str, Any]) -> list[str]:
    """Say what would make it fit."""
    if not plan["advice"]:
        return ["No mesh, batch size or larger slice that was tried holds it; use adapters or a smaller model."]
    lines = ["What would fit, estimated from shapes:"]
    for one in plan["advice"]:
        words = [f"--topology {one['topology']}"] if one["topology"] else []
        words += [change(one["set"])] if one["set"] else []
        lines.append(f"  {'  '.join(words)}   (peak {size(one['peak'])})")
    return lines


def _phases(plan: Mapping[str, Any]) -> list[str]:
    rows = [("phase", "operations", "bytes moved", "at peak", "predicted", "bound by")]
    for one in plan["phases"]:
        rows.append(
            (
                phase(one["name"]),
                operations(one["executed"]),
                size(one["moved"]),
                seconds(one["at_peak"]),
                seconds(one["predicted"]),
                bound(one["bound_by"]),
            )
        )
    step, use = plan["step"], plan["efficiencies"]
    rate = step["samples_per_second"]
    total = sum(one["executed"] for one in plan["phases"])
    ends = seconds(step["bound_seconds"]), seconds(step["predicted_seconds"])
    rows.append(("step", operations(total), "", *ends, ""))
    return [
        f"A step, {NOT_MEASURED}:",
        *columns(rows),
        f"predicted: MFU {share(step['mfu'])}, HFU {share(step['hfu'])}, {rate:.3g} rows a second",
        f"at peak: published rates; predicted: {use['products']:.0%} of products, {use['memory']:.0%} of memory, "
        f"{use['links']:.0%} of links, and a latency for each exchange",
    ]


def _exchanges(plan: Mapping[str, Any]) -> list[str]:
    rows = [("exchange", "along", "times", "bytes sent by a chip", "hidden")]
    for one in plan["phases"]:
        for each in one["exchanges"][:_SHOWN_EXCHANGES]:
            hidden = "behind products" if each["overlapped"] else "no"
            name = f"{phase(one['name'])}: {each['kind']}"
            rows.append((name, each["axis"], f"{each['count']:,.0f}", size(each["sent"]), hidden))
    if len(rows) == 1:
        return ["No exchanges between chips."]
    # A program that was refused for its size has no text.
    how = "in the compiled program" if plan["compile_seconds"] else "estimated from the layout"
    return [f"Exchanges of a step, {how}:", *columns(rows)]


def _run(plan: Mapping[str, Any]) -> list[str]:
    run = plan["run"]
    if run["steps"] is None:
        known = f"{plan['stage']}.max_steps is null: how long a run takes follows from the data"
        price = run["cost_per_1000_steps"]
        return [known + (f"; 1000 steps cost {money(price)} (predicted)" if price is not None else "")]
    text = (
        f"{run['steps']} steps: {hours(run['hours'])}, {run['chip_hours']:.3g} chip-hours (predicted, compiling apart)"
    )
    if run["cost"] is not None:
        text += f", {money(run['cost'])} at {run['price']:g} USD a chip and hour"
    return [text]


def _grace(plan: Mapping[str, Any]) -> str:
    """Say what SIGTERM takes: the call that runs and the one behind it end, and a write may be under way already."""
    kinds = plan["memory"]["kinds"]
    host = (kinds["trained weights"] + kinds["optimizer"]) * plan["chips"] // plan["hosts"]
    return (
        f"A checkpoint is at most {size(host)} of a host. SIGTERM loses nothing where the grace period holds two steps "
        f"({seconds(2 * plan['step']['predicted_seconds'])}, predicted) and two writes of that"
    )


def show_sweep(found: Mapping[str, Any], topology: str) -> None:
    """Print what a sweep found."""
    sweep = found["sweep"]
    lines = [
        f"{sweep['tried']} choices on {topology} were estimated from shapes, {sweep['fitting']} fit. None is both",
        f"smaller and faster than one of these; times are {NOT_MEASURED}:",
        *_points(sweep["frontier"]),
    ]
    if sweep["compiled"]:
        lines += ["", "The fastest of them, compiled:", *_points(sweep["compiled"])]
    best = next((one for one in (*sweep["compiled"], *sweep["frontier"]) if one["fits"]), None)
    if best is not None:
        lines += ["", f"The fastest that fits: {change(best['set'])}"]
    print("\n".join(lines), file=sys.stdout)


def _points(points: Sequence[Mapping[str, Any]]) -> list[str]:
    rows = [("mesh", "answers", "a device takes", "rows a step", "peak of a chip", "step", "rows a second", "fits")]
    for one in points:
        values = {key.rpartition(".")[2]: value for key, value in one["set"].items()}
        mesh = mesh_text({axis: values[axis] for axis in ("data", "fsdp", "tensor")})
        answers = mesh_text(values["rollout"]) if values.get("rollout") else "as training"
        micro = str(values["per_device_batch_size"])
        figures = size(one["peak"]), seconds(one["seconds"]), f"{one['samples_per_second']:.3g}"
        rows.append((mesh, answers, micro, str(one["rows"]), *figures, "yes" if one["fits"] else "no"))
    return columns(rows)
