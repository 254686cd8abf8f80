"""Which mesh `platform.mesh: auto` is, from what a stage keeps on its chips and how many rows it has."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from podium.config.platform import MeshConfig, RolloutMeshConfig

GIB = 2**30
# Of a chip's memory, what weights, their gradients and slots of the optimizer may take: the rest is activations, the
# cache of keys and values, and what compiled programs need beside.
RESIDENT = 0.7
# Of a chip's memory, what it holds of the weights that decoding reads for every token. A chip reads all of its memory
# in 20 to 40 ms (16 GiB at 819 GB/s of v5e, 95 GiB at 2,765 GB/s of v5p, 80 GB at 3,350 GB/s of H100), so that a token
# takes 3 to 7 ms; cut further, the devices would meet as long as they read.
DECODED = 1 / 6


@dataclass(frozen=True)
class Demand:
    """What a stage asks of all chips of a slice together.

    resident: bytes by role of what lies there for the whole run: weights, slots of the optimizer; and of "gradients",
    which are there in updates. decoded: bytes of the weights that answer prompts, in the type that is computed in; 0
    where none are answered. rows: of one update, None: as many as the devices take. shared: sizes that `tensor` must
    divide (query heads, width of the MLP, vocabulary); width: what `fsdp` must divide. copied: the weights that answer
    are trained, so that each step makes their copy anew, and gives it up before gradients are made.
    """

    resident: Mapping[str, int]
    decoded: int
    rows: int | None
    shared: tuple[int, ...]
    width: int
    copied: bool = False

    @property
    def total(self) -> int:
        return sum(self.resident.values())

    @property
    def answering(self) -> int:
        """Bytes that lie beside the weights that answer: a frozen copy of these is there in updates, too."""
        return self.total - self.resident.get("gradients", 0) if self.copied else self.total


@dataclass(frozen=True)
class Chips:
    """count: of all slices; memory: bytes of one."""

    count: int
    memory: int
    slices: int = 1

    @property
    def per_slice(self) -> int:
        return self.count // self.slices


class Choice(NamedTuple):
    """A mesh, a sentence that says why, and whether there is room to compute and a row for each group of chips."""

    mesh: MeshConfig
    why: str
    fits: bool


def choose_mesh(demand: Demand, chips: Chips) -> Choice:
    """Choose the mesh of a stage that trains, and the layout in which it answers.

    tensor: 1, or where an update has fewer rows than there are chips, the least with a row for each group. fsdp: the
    rest of the slice, so far as it divides the width; slices, and what fsdp leaves, are copies. rollout: the fewest
    devices that share weights whose part of them is no more than DECODED of a chip's memory, else the most that can
    share them; the batch over the rest.
    """
    tensor = _tensor(demand, chips)
    fsdp = max(_divisors(chips.per_slice // tensor, demand.width))
    data = chips.per_slice // tensor // fsdp
    few = demand.rows is not None and demand.rows < chips.count
    enough = demand.rows is None or chips.count // tensor <= demand.rows
    reasons = [f"{demand.rows} rows of an update are fewer than {chips.count} chips"] if few else []
    if few:
        reasons[0] += f", so {tensor} chips share one" if enough else f", and no more than {tensor} can share one"
    held = demand.total / (fsdp * tensor)
    reasons.append(
        f"training keeps {_gib(held)} of {_gib(chips.memory)} a chip, cut over fsdp={fsdp}"
        + (f" x tensor={tensor}" if tensor > 1 else "")
        + (f" in {data} copies a slice, because {demand.width} wide layers cannot be cut further" if data > 1 else "")
    )
    rollout = None
    if demand.decoded and fsdp > 1:
        shared = _rollout_tensor(demand, chips, fsdp, tensor)
        if shared is None:
            reasons.append("a second copy of the weights for answers does not fit")
        else:
            rollout = RolloutMeshConfig(data=chips.count // shared, tensor=shared)
            held = max(held, demand.answering / (fsdp * tensor) + demand.decoded / shared)
            reasons.append(
                f"answers read {_gib(demand.decoded / shared)} of weights a token and chip, shared by {shared}"
            )
    fits = held <= RESIDENT * chips.memory
    if not fits:
        reasons.append(f"more than {RESIDENT:.0%} of a chip, which leaves too little to compute with")
    mesh = MeshConfig(slice=chips.slices, data=data, fsdp=fsdp, tensor=tensor, rollout=rollout)
    return Choice(mesh, "; ".join(reasons), fits and enough)


def choose_decoding_mesh(demand: Demand, chips: Chips) -> Choice:
    """Choose the mesh of a stage that answers and scores, and trains nothing: weights over tensor, batch over the rest.

    Nothing is cut over fsdp, which would gather every layer's weights for every token.
    """
    sizes = _divisors(chips.per_slice, *demand.shared)
    held = {size: demand.total / size for size in sizes}
    few = [size for size in sizes if demand.decoded / size <= DECODED * chips.memory]
    few = [size for size in few if held[size] <= RESIDENT * chips.memory]
    tensor = min(few) if few else max(sizes)
    fits = held[tensor] <= RESIDENT * chips.memory
    mesh = MeshConfig(slice=chips.slices, data=chips.per_slice // tensor, fsdp=1, tensor=tensor)
    why = f"answers read {_gib(demand.decoded / tensor)} of weights a token and chip, shared by {tensor}"
    if not fits:
        why += f"; {_gib(held[tensor])} of weights are more than {RESIDENT:.0%} of a chip's {_gib(chips.memory)}"
    return Choice(mesh, why, fits)


def _tensor(demand: Demand, chips: Chips) -> int:
    """The least size with a row for each group of devices; the largest there is where none has."""
    sizes = _divisors(chips.per_slice, *demand.shared)
    if demand.rows is None:
        return 1
    enough = [size for size in sizes if chips.count // size <= demand.rows]
    return min(enough) if enough else max(sizes)


def _rollout_tensor(demand: Demand, chips: Chips, fsdp: int, tensor: int) -> int | None:
    """How many devices share the weights that answer; None where the copy fits nowhere beside what lies there."""
    sizes = [tensor * part for part in _divisors(fsdp) if _divides(tensor * part, demand.shared)]
    room = RESIDENT * chips.memory - demand.answering / (fsdp * tensor)
    fitting = [size for size in sizes if demand.decoded / size <= room]
    quick = [size for size in fitting if demand.decoded / size <= DECODED * chips.memory]
    return min(quick, default=None) or max(fitting, default=None)


def _divisors(count: int, *sizes: int) -> list[int]:
    """The divisors of a number of devices that divide all sizes too."""
    return [part for part in range(1, count + 1) if count % part == 0 and _divides(part, sizes)]


def _divides(part: int, sizes: Iterable[int]) -> bool:
    return all(size % part == 0 for size in sizes)


def _gib(count: float) -> str:
    return f"{count / GIB:.3g} GiB"
