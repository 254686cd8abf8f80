"""Read the text of a compiled program: its computations, their instructions, and how often each loop runs."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

_ARRAY = re.compile(r"\b(pred|[a-z]+\d+[a-z0-9]*)\[([\d,]*)\]")
_HEADER = re.compile(r"^(?P<entry>ENTRY )?%?(?P<name>[\w.\-]+) \(.*\{\s*$")
_LINE = re.compile(r"^\s+(?P<root>ROOT )?%?(?P<name>[\w.\-]+) = (?P<rest>.*)$")
_OPCODE = re.compile(r"\s*(?P<opcode>[a-z][\w\-]*)\(")
_CALLS = re.compile(
    r"\b(calls|body|condition|to_apply|called_computations|branch_computations|true_computation|false_computation)="
    r"(\{[^}]*\}|%?[\w.\-]+)"
)
_NAME = re.compile(r"%?([\w.\-]+)")
_OPERAND = re.compile(r"%([\w.\-]+)")
_OP_NAME = re.compile(r'op_name="([^"]*)"')
_TRIPS = re.compile(r'"known_trip_count":\s*\{\s*"n":\s*"?(\d+)')


@dataclass(frozen=True)
class Instruction:
    """One line: `shape` is the text of its type, `arguments` what its parentheses hold, `attributes` what follows."""

    name: str
    opcode: str
    shape: str
    arguments: str
    attributes: str
    is_root: bool

    @cached_property
    def operands(self) -> tuple[str, ...]:
        return tuple(_OPERAND.findall(self.arguments))

    @cached_property
    def calls(self) -> dict[str, tuple[str, ...]]:
        """The computations that it runs, by attribute."""
        return {name: tuple(_NAME.findall(text.strip("{}"))) for name, text in _CALLS.findall(self.attributes)}

    @cached_property
    def op_name(self) -> str:
        """The path of scopes that it came from."""
        found = _OP_NAME.search(self.attributes)
        return found[1] if found else ""

    def attribute(self, name: str) -> str:
        """Return the text of an attribute, up to the next one; "" where there is none."""
        found = re.search(rf"\b{name}=(.*?)(?=, [a-z_]+=|$)", self.attributes)
        return found[1] if found else ""


@dataclass(frozen=True)
class Module:
    """Instructions by computation, in their order; entry: where it begins."""

    computations: Mapping[str, Sequence[Instruction]]
    entry: str

    @cached_property
    def named(self) -> dict[str, dict[str, Instruction]]:
        """Instructions by computation and name."""
        return {name: {one.name: one for one in lines} for name, lines in self.computations.items()}


def parse(text: str) -> Module:
    """Read the text that `compiled.as_text()` gives."""
    computations: dict[str, list[Instruction]] = {}
    entry, current = "", None
    for line in text.splitlines():
        if line and not line[0].isspace():
            header = _HEADER.match(line)
            if header is not None:
                current = computations.setdefault(header["name"], [])
                entry = header["name"] if header["entry"] else entry
        elif current is not None and (found := _LINE.match(line)):
            instruction = _instruction(found["name"], found["rest"], found["root"] is not None)
            if instruction is not None:
                current.append(instruction)
    return Module(computations, entry)


def _instruction(name: str, rest: str, is_root: bool) -> Instruction | None:
    end = _closing(rest, 0) + 1 if rest.startswith("(") else rest.find(" ")
    found = _OPCODE.match(rest, end)
    if found is None:
        return None
    close = _closing(rest, found.end() - 1)
    return Instruction(name, found["opcode"], rest[:end], rest[found.end() : close], rest[close + 1 :], is_root)


def _closing(text: str, start: int) -> int:
    """Return where the parenthesis that opens at `start` closes."""
    depth = 0
    for place in range(start, len(text)):
        depth += (text[place] == "(") - (text[place] == ")")
        if depth == 0:
            return place
    return len(text)


def size_of(shape: str) -> int:
    """Bytes of all arrays in the text of a type: bf16[8,128]{1,0} has 2048."""
    total = 0.0
    for kind, sizes in _ARRAY.findall(shape):
        total += _width(kind) * math.prod(int(size) for size in sizes.split(",") if size)
    return int(total)


def _width(kind: str) -> float:
    """Bytes of one entry: f32 has 4, f8e4m3fn one."""
    if kind == "pred":
        return 1
    bits = re.search(r"\d+", kind)
    assert bits is not None, kind
    return int(bits[0]) / 8


def trip_count(module: Module, loop: Instruction) -> int | None:
    """Say how often a `while` runs: as the compiler noted, or as its condition and body count.

    None where the program decides it while it runs.
    """
    if noted := _TRIPS.search(loop.attributes):
        return int(noted[1])
    (condition,), (body,) = loop.calls["condition"], loop.calls["body"]
    limit = _limit(module, condition)
    return None if limit is None else -(-limit // _stride(module, body))


def _limit(module: Module, condition: str) -> int | None:
    """The constant that a counter stays below, where that comparison is the whole condition."""
    root = next((one for one in module.computations[condition] if one.is_root), None)
    if root is None or root.opcode not in ("compare", "fusion"):
        return None
    if root.opcode == "fusion":
        (inside,) = root.calls["calls"]
        inner = next((one for one in module.computations[inside] if one.is_root), None)
        if inner is None or inner.opcode != "compare":
            return None
    found = (module.named[condition].get(name) for name in root.operands)
    constants = [one.arguments for one in found if one is not None and one.opcode == "constant"]
    return int(constants[0]) if len(constants) == 1 and constants[0].isdecimal() else None


def _stride(module: Module, body: str) -> int:
    """How far the counter, the first part of the loop's state that is a scalar, moves in one turn."""
    lines = module.named[body]
    root = next((one for one in module.computations[body] if one.is_root), None)
    if root is None or root.opcode != "tuple":
        return 1
    for name in root.operands:
        line = lines.get(name)
        if line is None or not re.match(r"[su]32\[\]", line.shape) or line.opcode not in ("add", "fusion"):
            continue
        for operand in line.operands:
            constant = lines.get(operand)
            if constant is not None and constant.opcode == "constant" and constant.arguments.isdecimal():
                return max(int(constant.arguments), 1)
    return 1
