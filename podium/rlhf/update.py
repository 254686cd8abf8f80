"""Epochs of minibatch updates on one rollout, by any algorithm: an experience plus an objective.

Where an update sees the whole rollout (one minibatch, one micro-batch), the policy has not moved between sampling and
the first one, so that its new log-probabilities and values *are* the old ones: they are computed once, in the forward
pass that is differentiated.
"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax

from podium.losses import masked
from podium.parallel.phases import phase
from podium.parallel.rows import ALL, Rows
from podium.rlhf.experience import Predictions, ScoredRollout
from podium.training.accumulate import like, sum_over

if TYPE_CHECKING:
    from podium.rlhf.rollout import Rollout

Tree = Any
Numbers = dict[str, jax.Array]


class Named(Protocol):
    """Statistics of an update, a tree: those of its parts add up to those of the whole."""

    def named(self) -> Numbers:
        """Give the metrics by name, once the parts were added up."""


@dataclass(frozen=True)
class Algorithm:
    """What updates learn; the loop below knows neither rewards nor critics.

    compute: weights -> the same in the type that is computed in: taken once an update, for all its micro-batches.
    predict: (weights, rollout) -> predictions of its rows under these weights.
    experience: (old predictions, scored rollout) -> (tree of arrays [rows, ...], metrics): made once, of all rows, from
    what the policy predicts that sampled; a constant to the gradient.
    objective: (predictions, experience, mask, total) -> (loss, statistics) of some rows: their part of means over
    `total` tokens.
    """

    compute: Callable[[Tree], Tree]
    predict: Callable[[Tree, "Rollout"], Predictions]
    experience: Callable[[Predictions, ScoredRollout], tuple[Tree, Numbers]]
    objective: Callable[[Predictions, Any, jax.Array, jax.Array], tuple[jax.Array, Any]]


@dataclass(frozen=True)
class UpdateSchedule:
    """How often a rollout is learnt from, and in how many parts."""

    epochs: int
    mini_batches: int
    micro_batches: int

    @property
    def whole(self) -> bool:
        """Whether every update sees the whole rollout at once."""
        return self.mini_batches * self.micro_batches == 1


class Trained(NamedTuple):
    """Weights by network, and the state of each network's optimizer."""

    weights: dict[str, Tree]
    optimizer: dict[str, Tree]


class Updated(NamedTuple):
    """old: predictions of the policy that sampled; metrics: of the experience; statistics: by name, [updates]."""

    trained: Trained
    old: Predictions
    metrics: Numbers
    statistics: Numbers


class _Learned(NamedTuple):
    """What the rows at hand are learnt from; total: the tokens of all rows, which the objective's means are over."""

    old: Predictions
    experience: Tree
    total: jax.Array
    metrics: Numbers


def run_updates(
    algorithm: Algorithm,
    schedule: UpdateSchedule,
    optimizers: Mapping[str, optax.GradientTransformation],
    trained: Trained,
    rollout: "Rollout",
    scored: ScoredRollout,
    key: jax.Array,
    rows: Rows = ALL,
) -> Updated:
    """Run epochs x minibatches of updates.

    With `rows` apart, devices or slices are micro-batches of whole updates: gradients and statistics add up, once an
    update.
    """
    step = functools.partial(_step, optimizers, rows)

    def learn_from(old: Predictions) -> _Learned:
        all_old, all_scored = rows.all_gather((old, scored))
        experience, metrics = algorithm.experience(all_old, all_scored)
        return _Learned(old, rows.local(experience), masked.count(all_scored.mask), metrics)

    def first_loss(weights: Tree) -> tuple[jax.Array, tuple[Named, _Learned]]:
        predictions = algorithm.predict(weights, rollout)
        learned = learn_from(predictions.old())
        value, statistics = algorithm.objective(predictions, learned.experience, scored.mask, learned.total)
        return value, (statistics, learned)

    def loss(weights: Tree, part: tuple["Rollout", Tree, jax.Array], total: jax.Array) -> tuple[jax.Array, Named]:
        texts, experience, mask = part
        return algorithm.objective(algorithm.predict(weights, texts), experience, mask, total)

    def update(trained: Trained, order: jax.Array | None) -> tuple[Trained, Numbers]:
        """Learn from the rows of `order` [micro-batches, rows], whose gradients add up exactly; None: from all here."""
        everything = rollout, learned.experience, scored.mask
        gradient = functools.partial(_gradient, loss, algorithm.compute(trained.weights), trained.weights)
        if order is None:
            return step(trained, *_of_all(gradient, everything, learned.total, schedule.micro_batches))
        return step(trained, *_of_some(gradient, everything, masked.count(scored.mask[order.reshape(-1)]), order))

    if not schedule.whole:
        assert rows == ALL or schedule.mini_batches == 1, "minibatches are drawn from all rows"
        with phase("old"):
            learned = learn_from(_predict_in_parts(algorithm, schedule, algorithm.compute(trained.weights), rollout))
        with phase("update"):
            # Without minibatches an update has all rows, in whatever parts: those of a slice stay on their devices.
            orders = _orders(schedule, len(scored.mask), key) if rows == ALL else None
            trained, numbers = jax.lax.scan(update, trained, orders, length=schedule.epochs * schedule.mini_batches)
        return Updated(trained, learned.old, learned.metrics, numbers)
    with phase("update"):
        gradients, (statistics, learned) = _gradient(first_loss, algorithm.compute(trained.weights), trained.weights)
        trained, first = step(trained, gradients, statistics)
        numbers = {name: value[None] for name, value in first.items()}
        if schedule.epochs > 1:
            trained, more = jax.lax.scan(update, trained, None, length=schedule.epochs - 1)
            numbers = jax.tree.map(lambda one, others: jnp.concatenate([one, others]), numbers, more)
    return Updated(trained, learned.old, learned.metrics, numbers)


def _gradient(loss: Callable[..., Any], computed: Tree, masters: Tree, *arguments: Any) -> tuple[Tree, Any]:
    """Differentiate by the weights that are computed with; gives the gradient, in the masters' types, and the rest."""
    gradients, aside = jax.grad(loss, has_aux=True)(computed, *arguments)
    return like(gradients, masters), aside


def _of_all(gradient: Callable[..., Any], everything: Any, total: jax.Array, micro_batches: int) -> tuple[Tree, Any]:
    """Add up the gradients of so many parts of all rows, each with rows of every device."""
    if micro_batches == 1:
        return gradient(everything, total)
    return sum_over(lambda part: gradient(part, total), _interleaved(everything, micro_batches))


def _of_some(gradient: Callable[..., Any], everything: Any, total: jax.Array, order: jax.Array) -> tuple[Tree, Any]:
    """Add up the gradients of the rows that stand in `order` [micro-batches, rows]."""

    def part_gradient(places: jax.Array) -> tuple[Tree, Any]:
        return gradient(jax.tree.map(lambda x: jnp.take(x, places, axis=0), everything), total)

    return part_gradient(order[0]) if len(order) == 1 else sum_over(part_gradient, order)


def _predict_in_parts(algorithm: Algorithm, schedule: UpdateSchedule, weights: Tree, rollout: "Rollout") -> Predictions:
    """Old predictions, in parts of a micro-batch's size.

    It bounds memory by what the updates need anyway, and products of equal shapes round alike: the first update's ratio
    is 1 to the last bit. Parts interleave the rows, so that rows stay on their devices.
    """
    parts = schedule.mini_batches * schedule.micro_batches

    def join(x: jax.Array) -> jax.Array:
        return jnp.swapaxes(x, 0, 1).reshape(-1, *x.shape[2:])

    old = jax.lax.map(lambda part: algorithm.predict(weights, part).old(), _interleaved(rollout, parts))
    joined: Predictions = jax.tree.map(join, old)
    return joined


def _interleaved(tree: Tree, parts: int) -> Tree:
    """Cut arrays [rows, ...] into [parts, rows / parts, ...]: each part has rows of every device."""
    return jax.tree.map(lambda x: jnp.swapaxes(x.reshape(-1, parts, *x.shape[1:]), 0, 1), tree)


def _orders(schedule: UpdateSchedule, batch: int, key: jax.Array) -> jax.Array:
    """Rows of each micro-batch of each update [updates, micro-batches, rows], shuffled anew in each epoch."""
    keys = jax.random.split(key, schedule.epochs)
    orders = jax.vmap(lambda epoch_key: jax.random.permutation(epoch_key, batch))(keys)
    return orders.reshape(schedule.epochs * schedule.mini_batches, schedule.micro_batches, -1)


def _step(
    optimizers: Mapping[str, optax.GradientTransformation],
    rows: Rows,
    trained: Trained,
    gradients: Tree,
    statistics: Named,
) -> tuple[Trained, Numbers]:
    """One optimizer step for each network, with its own optimizer and its own clipped norm."""
    gradients, statistics = rows.total((gradients, statistics))
    weights, optimizer, norms = {}, {}, {}
    for name, gradient in gradients.items():
        updates, optimizer[name] = optimizers[name].update(gradient, trained.optimizer[name], trained.weights[name])
        weights[name] = optax.apply_updates(trained.weights[name], updates)
        norms[f"{name}/grad_norm"] = optax.global_norm(gradient)
    return Trained(weights, optimizer), statistics.named() | norms
