"""Walk the equations of a traced program."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax

LOOPS = ("scan", "while")


class Equation(NamedTuple):
    """An equation, and whether it stands inside a loop."""

    equation: Any
    looped: bool

    @property
    def name(self) -> str:
        return self.equation.primitive.name


def equations(jaxpr: Any, *, looped: bool = False) -> Iterator[Equation]:
    """Give every equation of a (closed) jaxpr, those of the programs inside it too."""
    jaxpr = getattr(jaxpr, "jaxpr", jaxpr)
    for equation in jaxpr.eqns:
        yield Equation(equation, looped)
        inside = looped or equation.primitive.name in LOOPS
        for value in jax.tree.leaves(equation.params, is_leaf=lambda x: hasattr(x, "eqns") or hasattr(x, "jaxpr")):
            if hasattr(value, "eqns") or hasattr(value, "jaxpr"):
                yield from equations(value, looped=inside)
