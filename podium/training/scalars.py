"""The numbers that a step reports, in one array: their count costs a small model's step more than their size."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from podium.parallel.sharding import constrain


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Scalars:
    """Numbers by name, packed inside the step's program and read outside of it.

    values: float32 [names], or [steps, names] where one call ran several steps.
    """

    names: tuple[str, ...] = dataclasses.field(metadata={"static": True})
    values: jax.Array

    @classmethod
    def pack(cls, numbers: Mapping[str, jax.Array]) -> "Scalars":
        """Hold scalars of any type as float32: counts are exact below 2^24. Every process of a run can read them."""
        values = jnp.stack([value.astype(jnp.float32) for value in numbers.values()])
        return cls(tuple(numbers), constrain(values, None))

    def read(self) -> list[dict[str, float]]:
        """Wait for the call and give the numbers of each of its steps."""
        return [dict(zip(self.names, row, strict=True)) for row in np.atleast_2d(self.values).tolist()]


def reporting(step: Callable[..., tuple[Any, Mapping[str, jax.Array]]]) -> Callable[..., tuple[Any, Scalars]]:
    """Let a pure step (...) -> (state, metrics) pack its metrics."""

    def packed(*arguments: Any) -> tuple[Any, Scalars]:
        state, metrics = step(*arguments)
        return state, Scalars.pack(metrics)

    return packed
