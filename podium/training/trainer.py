"""The one trainer: a pure step, a state and batches by number, run to the end or from where an earlier start got."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from podium.parallel import placement
from podium.parallel.alike import alike
from podium.parallel.sharding import tree_shardings
from podium.training.loop import Monitor, TrainingRun, run_loop
from podium.training.optimizer import optimizer_shardings
from podium.training.scalars import Scalars, reporting
from podium.training.step import TrainState

State = TypeVar("State")
Step = Callable[[State, Any, Any], tuple[State, dict[str, jax.Array]]]


class AbstractStep(NamedTuple):
    """A program of training with the shapes of its arguments: (state, what is frozen, batch, ...)."""

    program: Any
    arguments: tuple[Any, ...]
    mesh: Mesh

    def trace(self) -> Any:
        """Trace the program for its mesh."""
        with placement.on(self.mesh):
            return self.program.trace(*self.arguments)

    def lower(self) -> Any:
        """Lower the program, which then compiles for the devices of the mesh, here or not."""
        with placement.on(self.mesh):
            return self.program.trace(*self.arguments).lower()


def jit_step(step: Step[State], state: State) -> Any:
    """Jit a pure step (state, frozen, batch) -> (state, metrics), laid out like `state`, which is donated."""
    shardings = jax.tree.map(lambda x: x.sharding, state)
    return jax.jit(reporting(step), donate_argnums=0, out_shardings=(shardings, None))


def abstract_training(
    step: Step[TrainState],
    tx: optax.GradientTransformation,
    mesh: Mesh,
    weights: tuple[Any, Any],
    frozen: tuple[Any, Any],
    batch: Any,
) -> AbstractStep:
    """Make the program that `fit` would compile, without a model: of `start_state` and `place_batch`, the shapes.

    weights, frozen: shapes, and their logical axes; batch: arrays or shapes, which lead with micro-batches.
    """
    shapes, axes = weights
    trained = tree_shardings(mesh, axes, shapes)
    state = jax.eval_shape(lambda weights: TrainState(weights, tx.init(weights), jnp.zeros((), jnp.int32)), shapes)
    slots = optimizer_shardings(tx, trained, shapes, mesh)
    state = placement.abstract(state, state._replace(weights=trained, optimizer=slots, step=placement.whole(mesh)))
    bases = placement.abstract(frozen[0], tree_shardings(mesh, frozen[1], frozen[0]))
    batch = placement.abstract(batch, jax.tree.map(lambda x: placement.batch_sharding(mesh, x.shape, 1), batch))
    return AbstractStep(jit_step(step, state), (state, bases, batch), mesh)


def fit(
    step: Step[State],
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
    compiled = alike(f"the {monitor.label} step", jit_step(step, state))

    def steps(indices: range, state: State) -> tuple[State, Scalars, None]:
        state, scalars = compiled(state, frozen, batches(indices[0]))
        return state, scalars, None

    return run_loop(steps, state, run, monitor, total=total)
