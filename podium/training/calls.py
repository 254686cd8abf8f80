"""Several steps in one call: a small model's step is shorter than what a host does to start it and to hear of it."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

# One call lasts about as long as a processor needs for so many operations, a tenth of a second or two.
OPERATIONS = 5e10
# More gain nothing, and a run that is killed makes those of a call again.
MOST_STEPS = 8


def steps_per_call(operations: float) -> int:
    """Say how many steps of so many floating-point operations one call may run; the same in every process of a run."""
    return min(max(int(OPERATIONS / operations), 1), MOST_STEPS)


def repeated(step: Callable[..., tuple[Any, Any]], most: int) -> Callable[..., tuple[Any, Any]]:
    """Let a pure step (state, fixed, batch) -> (state, log) run as often as one call says.

    The result takes (state, fixed, batches, count): arrays of `batches` lead with `most`, and the first `count` of them
    are used, an int32 that is traced, so that any count is the same program and rounds alike. The log leads with
    `most`, too, and is zero beyond the count.
    """

    def single(state: Any, fixed: Any, batches: Any, count: jax.Array) -> tuple[Any, Any]:
        state, log = step(state, fixed, jax.tree.map(lambda x: x[0], batches))
        return state, jax.tree.map(lambda x: x[None], log)

    def several(state: Any, fixed: Any, batches: Any, count: jax.Array) -> tuple[Any, Any]:
        def again(index: jax.Array, carry: tuple[Any, Any]) -> tuple[Any, Any]:
            state, logs = carry
            state, log = step(state, fixed, jax.tree.map(lambda x: x[index], batches))
            return state, jax.tree.map(lambda all, one: all.at[index].set(one), logs, log)

        _, log = jax.eval_shape(step, state, fixed, jax.tree.map(lambda x: x[0], batches))
        logs = jax.tree.map(lambda x: jnp.zeros((most, *x.shape), x.dtype), log)
        finished: tuple[Any, Any] = jax.lax.fori_loop(0, count, again, (state, logs))
        return finished

    return single if most == 1 else several
