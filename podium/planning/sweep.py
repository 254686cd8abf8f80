"""Try meshes and batch sizes on shapes, and compile the best few: what a stage could be, on the same chips."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from podium.errors import UserError
from podium.planning import measure
from podium.planning.advice import Change, with_changes
from podium.planning.measure import Measured, Say
from podium.planning.programs import Job
from podium.planning.roofline import time_step
from podium.planning.topology import Topology

# Compiling takes minutes each.
COMPILED = 2
# More devices than heads of the usual models share a layer badly.
_MOST_TENSOR = 32
_ROWS = (1, 2, 4, 8, 16, 32)


@dataclass(frozen=True)
class Point:
    """One choice with what it costs. peak: bytes of a chip; seconds: of a predicted step; set: the values of it."""

    set: Change
    rows: int
    peak: int
    fits: bool
    seconds: float
    samples_per_second: float
    compiled: bool


def run(job: Job, topology: Topology, say: Say) -> dict[str, Any]:
    """Give the frontier: of all choices that fit, those that no other beats in both memory and samples a second.

    All are estimated from shapes, and the fastest few compiled (for TPUs). Raises UserError where none fits.
    """
    tried: list[Point] = []
    for change in _choices(job, topology):
        try:
            found = measure.by_shapes(with_changes(job, change), topology, trace=False)
        except UserError:
            continue
        tried.append(_point(job, topology, change, found))
        if len(tried) % 20 == 0:
            say(f"{len(tried)} choices estimated from shapes")
    fitting = [point for point in tried if point.fits]
    if not fitting:
        raise UserError(
            f"no mesh and batch size of {len(tried)} that were tried fits {topology}; run podium plan without --sweep, "
            "which says what would"
        )
    best = frontier(fitting)
    compiled = []
    for point in best[:COMPILED] if topology.is_tpu else []:
        say(f"compiling {_written(point.set)}")
        found = measure.by_compiling(with_changes(job, point.set), topology, say)
        compiled.append(_point(job, topology, point.set, found))
    return {
        "tried": len(tried),
        "fitting": len(fitting),
        "frontier": [asdict(point) for point in best],
        "compiled": [asdict(point) for point in compiled],
    }


def frontier(points: list[Point]) -> list[Point]:
    """Keep points that none beats in both: the fastest first, each next one slower and smaller."""
    kept: list[Point] = []
    for point in sorted(points, key=lambda one: (-one.samples_per_second, one.peak)):
        if not kept or point.peak < kept[-1].peak:
            kept.append(point)
    return kept


def _point(job: Job, topology: Topology, change: Change, found: Measured) -> Point:
    step = time_step(found.phases, topology, job.config.model.dtype, found.links)
    return Point(
        change, found.rows, found.peak, found.fits, step.predicted, found.rows / step.predicted, found.compiled
    )


def _choices(job: Job, topology: Topology) -> Iterator[Change]:
    """All meshes without copies of the model, with each layout of the answers, and micro-batches of powers of two."""
    stage, section = job.stage, getattr(job.config, job.stage)
    chips = topology.per_slice
    for tensor in _powers(min(chips, _MOST_TENSOR)):
        if chips % tensor:
            continue
        mesh: Change = {"platform.mesh.data": 1, "platform.mesh.fsdp": chips // tensor, "platform.mesh.tensor": tensor}
        layouts: list[Any] = [None]
        if stage == "ppo" and chips > tensor:
            layouts += [{"data": topology.slices * chips // tensor, "tensor": tensor}] if tensor > 1 else []
            layouts += [{"data": topology.slices, "tensor": chips}]
        for layout in layouts:
            for batch in _batches(stage, section):
                yield mesh | ({"platform.mesh.rollout": layout} if stage == "ppo" else {}) | batch


def _batches(stage: str, section: Any) -> Iterator[Change]:
    """Micro-batches of a step whose rows are fixed; else rows of a device too."""
    for rows in _ROWS:
        change: Change = {f"{stage}.per_device_batch_size": rows}
        if section.global_batch_size is None and stage == "ppo":
            parts = section.num_mini_batches * section.gradient_accumulation_steps
            if rows % parts:
                continue
        yield change


def _powers(most: int) -> Iterator[int]:
    size = 1
    while size <= most:
        yield size
        size *= 2


def _written(change: Change) -> str:
    return " ".join(f"{key}={value}" for key, value in change.items())
