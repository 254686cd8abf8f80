"""Count the operations of a program from what JAX traced of it, loops as often as they run.

XLA's own count (`cost_analysis`) takes the body of a loop once, so it is of no use for layers that are scanned. Only
products are counted, because a chip's peak is that of its matrix units, and as they are written: of a kernel that skips
blocks of a causal mask, all blocks of its grid.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from podium.parallel.phases import phase_in

# Floating-point operations by phase (`podium.parallel.phases`), of all devices together.
Counts = dict[str, float]


def count(jaxpr: Any, *, decode_steps: int = 1, start: str = "update") -> Counts:
    """Count the products of a (closed) jaxpr by phase; what stands in none belongs to `start`.

    `decode_steps`: how often the loop of the phase "decode" runs, whose end a program decides for itself. Any other
    `while` is counted once, of a `cond` the branch with the most operations.
    """
    return _count(getattr(jaxpr, "jaxpr", jaxpr), start, decode_steps)


def _count(jaxpr: Any, phase: str, decode_steps: int) -> Counts:
    return _merged(
        _of_equation(equation, phase_in(str(equation.source_info.name_stack)) or phase, decode_steps)
        for equation in jaxpr.eqns
    )


def _of_equation(equation: Any, phase: str, decode_steps: int) -> Counts:
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
        return {phase: _product(equation)}
    if name == "conv_general_dilated":
        return {phase: _convolution(equation)}
    inner = [_count(part, phase, decode_steps) for part in _jaxprs(params)]
    if name == "cond":
        return max(inner, key=lambda counts: sum(counts.values()))
    times = 1
    if name == "scan":
        times = params["length"]
    elif name == "while" and phase == "decode":
        times = decode_steps
    elif name == "shard_map":
        # Its arrays are those of one device.
        times = math.prod(params["mesh"].shape[axis] for axis in params["newly_manual_axes"])
    elif name == "pallas_call":
        times = math.prod(params["grid_mapping"].grid)
    return {key: value * times for key, value in _merged(inner).items()}


def _merged(parts: Iterable[Counts]) -> Counts:
    merged: Counts = {}
    for part in parts:
        for name, operations in part.items():
            merged[name] = merged.get(name, 0.0) + operations
    return merged


def _jaxprs(params: Mapping[str, Any]) -> Iterator[Any]:
    """Give the programs inside an equation."""
    for value in params.values():
        for part in value if isinstance(value, tuple | list) else (value,):
            part = getattr(part, "jaxpr", part)
            if hasattr(part, "eqns"):
                yield part


def _product(equation: Any) -> float:
    """2 x the sizes of the result x the sizes that are summed over."""
    (contracted, _), _ = equation.params["dimension_numbers"]
    left = equation.invars[0].aval.shape
    return 2.0 * math.prod(equation.outvars[0].aval.shape) * math.prod(left[dim] for dim in contracted)


def _convolution(equation: Any) -> float:
    """2 x the sizes of the result x the kernel's entries for one output channel."""
    kernel, result = equation.invars[1].aval.shape, equation.outvars[0].aval.shape
    outputs = kernel[equation.params["dimension_numbers"].rhs_spec[0]]
    return 2.0 * math.prod(result) * math.prod(kernel) / outputs
