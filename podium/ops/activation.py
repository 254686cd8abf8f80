"""Activations of MLPs."""

import functools
from collections.abc import Callable

import jax

from podium.ops.choices import Activation, Implementation
from podium.ops.cpu import activation as cpu
from podium.ops.platform import resolve

ACTIVATIONS: dict[Activation, Callable[[jax.Array], jax.Array]] = {
    "silu": jax.nn.silu,
    "gelu_tanh": functools.partial(jax.nn.gelu, approximate=True),
    "gelu": functools.partial(jax.nn.gelu, approximate=False),
    "relu": jax.nn.relu,
}


def gated(gate: jax.Array, up: jax.Array, activation: Activation, implementation: Implementation) -> jax.Array:
    """act(gate) * up (Shazeer 2020, arXiv 2002.05202)."""
    function = ACTIVATIONS[activation]
    if resolve(implementation) != "cpu":
        return function(gate) * up
    return cpu.gated_silu(gate, up) if activation == "silu" else cpu.gated(gate, up, function)
