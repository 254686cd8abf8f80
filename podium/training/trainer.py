"""The one trainer: a pure step, a state and batches by number, run to the end or from where an earlier start got."""

from collections.abc import Callable
from typing import Any, TypeVar

import jax

from podium.training.loop import Monitor, TrainingRun, run_loop
from podium.training.scalars import Scalars, reporting

State = TypeVar("State")


def fit(
    step: Callable[[State, Any, Any], tuple[State, dict[str, jax.Array]]],
    state: State,
    frozen: Any,
    batches: Callable[[int], Any],
    run: TrainingRun,
    monitor: Monitor,
    *,
    total: int,
) -> State:
    """Run steps 0 .. `total` - 1 of a pure step (state, frozen, batch) -> (state, metrics) as one compiled program.

    `state` is donated and keeps its layout; `batches(index)` gives the placed arrays of a step. Raises as `run_loop`.
    """
    shardings = jax.tree.map(lambda x: x.sharding, state)
    compiled = jax.jit(reporting(step), donate_argnums=0, out_shardings=(shardings, None))

    def steps(indices: range, state: State) -> tuple[State, Scalars, None]:
        state, scalars = compiled(state, frozen, batches(indices[0]))
        return state, scalars, None

    return run_loop(steps, state, run, monitor, total=total)
