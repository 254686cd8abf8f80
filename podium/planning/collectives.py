"""What devices say to each other in a compiled program: which collectives, along which axes of the mesh, how often.

Read from the program's text after XLA's partitioner and scheduler: what runs, not what was asked for.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from podium.parallel.phases import phase_in
from podium.planning.hlo import Instruction, Module, parse, size_of, trip_count
from podium.planning.roofline import Collective

_KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute", "collective-broadcast")
_NAMED = re.compile(r"replica_groups=mesh\[([^\]]*)\]([^{]*)\{([^}]*)\}")
_PART = re.compile(r"'([^']+)'(?::\((\d+)\)(\d+))?")
_IOTA = re.compile(r"\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?")

# (phase, kind, axis, overlapped, between) -> [count, bytes]
_Sums = dict[tuple[str, str, str, bool, bool], list[float]]


@dataclass
class _Reader:
    """Walks a module once; `seen` holds the channels of exchanges that are written down more than once."""

    module: Module
    shape: Mapping[str, int]
    unknown_trips: Callable[[str], int]
    sums: _Sums = field(default_factory=dict)
    seen: set[tuple[str, str, str, str]] = field(default_factory=set)

    def walk(self, computation: str, times: float, phase: str, path: str, overlapped: bool) -> None:
        for line in self.module.computations.get(computation, ()):
            where = phase_in(line.op_name) or phase
            if line.opcode == "while":
                self._loop(line, times, where, path, overlapped)
            elif kind := _kind(line.opcode, computation):
                # A chain is an exchange whose start, middle and end are fused with what runs meanwhile.
                hidden = overlapped or line.opcode.endswith("-start") or "chain_id=" in line.attributes
                self._exchange(kind, line, computation, times, where, path, hidden)
            elif line.opcode == "send" and "is_host_transfer=true" in line.attributes:
                self._add((where, "send", "slice", True, True), times, size_of(line.shape.split("]")[0] + "]"))
            else:
                # The pieces of an exchange that is fused with products, or runs beside them, are copies of it.
                beside = overlapped or line.opcode.startswith("async")
                for names in line.calls.values():
                    for name in names:
                        self.walk(name, times, where, path, beside)

    def _loop(self, line: Instruction, times: float, phase: str, path: str, overlapped: bool) -> None:
        trips = trip_count(self.module, line)
        turns = self.unknown_trips(phase) if trips is None else trips
        self.walk(line.calls["body"][0], times * turns, phase, f"{path}/{line.name}", overlapped)

    def _exchange(
        self, kind: str, line: Instruction, computation: str, times: float, phase: str, path: str, hidden: bool
    ) -> None:
        channel = line.attribute("channel_id")
        if channel:
            # Those that a program writes itself all have one channel, and where they were written tells them apart.
            own = line.attribute("metadata") if "shard_map" in line.op_name else ""
            if (path, kind, channel, own) in self.seen:
                return
            self.seen.add((path, kind, channel, own))
        groups = _groups(line, math.prod(self.shape.values()))
        size = max(map(len, groups), default=1)
        if size < 2:
            return
        axis = axes_of(groups, self.shape)
        held = _operand_bytes(self.module, computation, line)
        self._add((phase, kind, axis, hidden, "slice" in axis), times, _sent(kind, held, size))

    def _add(self, key: tuple[str, str, str, bool, bool], times: float, sent: float) -> None:
        total = self.sums.setdefault(key, [0.0, 0.0])
        total[0] += times
        total[1] += times * sent


def collectives_in(
    text: str, shape: Mapping[str, int], *, decode_steps: int = 1, start: str = "update"
) -> dict[str, list[Collective]]:
    """Give the exchanges of a compiled program by phase, the largest first.

    `shape`: devices along each axis of the mesh, in its order, which numbers the devices. A loop that ends when the
    program says so, which is that of decoding, runs `decode_steps` times.
    """
    reader = _Reader(parse(text), shape, lambda phase: decode_steps if phase == "decode" else 1)
    reader.walk(reader.module.entry, 1.0, start, "", False)
    found: dict[str, list[Collective]] = {}
    for (phase, kind, axis, overlapped, between), (count, sent) in reader.sums.items():
        found.setdefault(phase, []).append(Collective(kind, axis, count, sent, overlapped, between))
    return {phase: sorted(ones, key=lambda one: -one.sent) for phase, ones in found.items()}


def _kind(opcode: str, computation: str) -> str | None:
    plain = opcode.removesuffix("-start")
    if plain not in _KINDS:
        return None
    # On a TPU a reduce-scatter is an all-reduce that is fused with the choice of each device's part.
    return "reduce-scatter" if computation.startswith("all-reduce-scatter") else plain


def _operand_bytes(module: Module, computation: str, line: Instruction) -> int:
    """Bytes of what a device brings; types of operands stand at their own lines, in some texts in the call too."""
    if size := size_of(line.arguments):
        return size
    known = module.named[computation]
    return sum(size_of(known[name].shape) for name in line.operands if name in known)


def _sent(kind: str, held: float, size: int) -> float:
    """Bytes that one device of a ring of `size` sends, of `held` that it brings."""
    if kind == "all-gather":
        return held * (size - 1)
    if kind == "all-reduce":
        return 2.0 * held * (size - 1) / size
    if kind in ("reduce-scatter", "all-to-all"):
        return held * (size - 1) / size
    return held


def _groups(line: Instruction, devices: int) -> list[list[int]]:
    """The devices that exchange with each other, by their number in the mesh; of a permutation its pairs."""
    if named := _NAMED.search(line.attributes):
        return _named_groups(*named.groups())
    text = line.attribute("source_target_pairs") or line.attribute("replica_groups")
    if iota := _IOTA.search(text):
        groups = _numbers(iota[1])
        return [list(map(int, row)) for row in _iota(iota).reshape(groups)]
    found = [_numbers(group) for group in re.findall(r"\{([\d,]+)\}", text)]
    return found or [list(range(devices))]


def _named_groups(sizes: str, order: str, axes: str) -> list[list[int]]:
    """Read mesh['a'=2,'b'=4] {'b'}: devices that differ along the named axes, or a part of one, 'b':(2)2."""
    shape = {name: int(size) for name, size in re.findall(r"'([^']+)'=(\d+)", sizes)}
    iota = _IOTA.search(order)
    numbers = (_iota(iota) if iota else np.arange(math.prod(shape.values()))).reshape(tuple(shape.values()))
    split: list[int] = []
    varying: list[int] = []
    parts = {name: (int(before or 1), int(size or shape[name])) for name, before, size in _PART.findall(axes)}
    for name, size in shape.items():
        before, inside = parts.get(name, (size, 1))
        varying.append(len(split) + 1)
        split += [before, inside, size // (before * inside)]
    cut = np.moveaxis(numbers.reshape(split), varying, range(-len(varying), 0))
    return [list(map(int, row)) for row in cut.reshape(-1, math.prod(inside for _, inside in parts.values()))]


def _iota(found: re.Match[str]) -> np.ndarray:
    """Give the device numbers that [groups]<=[sizes]T(order) means, before they are grouped."""
    _, sizes, order = found.groups(default="")
    numbers = np.arange(math.prod(_numbers(sizes))).reshape(_numbers(sizes))
    return numbers.transpose(_numbers(order)) if order else numbers


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",") if number]


def axes_of(groups: Sequence[Sequence[int]], shape: Mapping[str, int]) -> str:
    """Name the axes of the mesh along which the devices of a group differ, as "fsdp" or "fsdp+tensor"."""
    varying = set()
    for places in _coordinates(groups, tuple(shape.values())):
        varying |= {axis for axis, column in zip(shape, places, strict=True) if len(set(column)) > 1}
    return "+".join(axis for axis in shape if axis in varying) or "none"


def _coordinates(groups: Sequence[Sequence[int]], sizes: tuple[int, ...]) -> Iterator[list[tuple[int, ...]]]:
    for group in groups:
        yield [tuple(map(int, place)) for place in np.unravel_index(np.asarray(group), sizes)]
