"""What crosses devices in a compiled program, read from its text."""

import re
from collections.abc import Iterator

_COLLECTIVE = re.compile(r"= (.*?) (?:all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter)(?:-start)?\(")


def crossing(text: str) -> list[tuple[int, ...]]:
    """Shapes of what the collective operations of a program, or of a part of one, give."""
    shapes = [shape for line in _COLLECTIVE.findall(text) for shape in re.findall(r"\w+\[([\d,]*)\]", line)]
    return [tuple(int(size) for size in shape.split(",") if size) for shape in shapes]


def meetings(text: str) -> int:
    """Count the collective operations of a program, or of a part of one."""
    return len(_COLLECTIVE.findall(text))


def loops(text: str) -> str:
    """Cut out the computations that are bodies of loops, and those that these call."""
    return "\n".join(_bodies(text))


def _bodies(text: str) -> Iterator[str]:
    computations = dict(re.findall(r"^(?:ENTRY )?%?([\w.-]+) [^\n]*\{\n(.*?)^\}", text, flags=re.M | re.S))
    todo = re.findall(r"body=%?([\w.-]+)", text)
    seen: set[str] = set()
    while todo:
        name = todo.pop()
        if name in seen or name not in computations:
            continue
        seen.add(name)
        todo += re.findall(r"(?:calls|to_apply|body)=%?([\w.-]+)", computations[name])
        yield computations[name]
