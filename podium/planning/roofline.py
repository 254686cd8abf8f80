"""How long a step takes at least, and how long it probably takes: arithmetic on counts and published rates.

A phase takes the larger of its operations over the rate of products and its bytes over the rate of memory, and then the
collectives that nothing hides (Williams, Waterman and Patterson 2009, "Roofline"). The bound has published peaks, no
latency, and hides every collective; the prediction has `EFFICIENCY` of the peaks. Neither is measured.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from podium.config.accelerators import EFFICIENCY, Chip
from podium.planning.topology import Topology

HOUR = 3600.0


@dataclass(frozen=True)
class Collective:
    """Exchanges of one kind along one axis of the mesh, in one phase of a step.

    count: how many; sent: bytes that one chip sends in all of them; overlapped: whether the program starts them and
    goes on; between: whether they cross the network between slices or hosts.
    """

    kind: str
    axis: str
    count: float
    sent: float
    overlapped: bool
    between: bool

    def seconds(self, chip: Chip, links: Mapping[str, float], *, at_peak: bool) -> float:
        """Time of the bytes, over the links of its axis (`meshes.links`; else the two of a ring), and of each start."""
        rate = chip.network if self.between else chip.link * links.get(self.axis, 2.0 if chip.sides else 1.0)
        if at_peak:
            return self.sent / rate
        return self.sent / (rate * EFFICIENCY.links) + self.count * chip.latency


@dataclass(frozen=True)
class Phase:
    """One phase of a step in counts. useful, executed: operations of all chips; moved: bytes of one chip's memory."""

    name: str
    useful: float
    executed: float
    moved: float
    collectives: Sequence[Collective] = ()


@dataclass(frozen=True)
class Timed:
    """A phase in seconds. at_peak: what no run is faster than; predicted: what is counted on; parts of the latter."""

    name: str
    at_peak: float
    predicted: float
    products: float
    memory: float
    collectives: float
    exposed: float

    @property
    def bound_by(self) -> str:
        """What takes longest."""
        parts = {"products": self.products, "memory": self.memory, "collectives": self.exposed}
        return max(parts, key=lambda name: parts[name])


def time_phase(phase: Phase, topology: Topology, dtype: str, links: Mapping[str, float]) -> Timed:
    """Time one phase on chips that compute in `dtype`."""
    chip = topology.accelerator.chip
    peak = chip.peak_of(dtype)
    each = phase.executed / topology.chips

    def of(overlapped: bool) -> float:
        chosen = [one for one in phase.collectives if one.overlapped == overlapped]
        return sum(one.seconds(chip, links, at_peak=False) for one in chosen)

    products, memory = each / (peak * EFFICIENCY.products), phase.moved / (chip.bandwidth * EFFICIENCY.memory)
    alone, hidden = of(False), of(True)
    working = max(products, memory)
    exposed = alone + max(hidden - working, 0.0)
    sent = sum(one.seconds(chip, links, at_peak=True) for one in phase.collectives)
    return Timed(
        name=phase.name,
        at_peak=max(each / peak, phase.moved / chip.bandwidth, sent),
        predicted=working + exposed,
        products=products,
        memory=memory,
        collectives=alone + hidden,
        exposed=exposed,
    )


@dataclass(frozen=True)
class Step:
    """All phases of a step, and the shares of the chips' peak that it reaches.

    mfu: useful operations over time x chips x peak; hfu: executed ones; bound, predicted: seconds.
    """

    phases: Sequence[Timed]
    bound: float
    predicted: float
    mfu: float
    hfu: float


def time_step(phases: Sequence[Phase], topology: Topology, dtype: str, links: Mapping[str, float]) -> Step:
    """Time a step."""
    chip = topology.accelerator.chip
    timed = [time_phase(phase, topology, dtype, links) for phase in phases]
    predicted = sum(one.predicted for one in timed)

    def share(operations: float) -> float:
        return chip.utilisation(operations, predicted, chips=topology.chips, dtype=dtype)

    return Step(
        timed,
        sum(one.at_peak for one in timed),
        predicted,
        share(sum(phase.useful for phase in phases)),
        share(sum(phase.executed for phase in phases)),
    )


def cost(seconds: float, topology: Topology, price: float) -> float:
    """What all chips cost for so long, at a price per chip and hour."""
    return seconds / HOUR * topology.chips * price


def phases_of(measured: Mapping[str, Any]) -> list[Phase]:
    """Read the phases that the worker counted."""
    return [
        Phase(
            one["name"],
            one["useful"],
            one["executed"],
            one["moved"],
            [Collective(**each) for each in one["collectives"]],
        )
        for one in measured["phases"]
    ]
