"""Epochs of minibatch updates on one rollout.

Where an update sees the whole rollout (one minibatch, one micro-batch), the policy has not moved between sampling and
the first one, so that its new log-probabilities and values *are* the old ones: they are computed once, in the forward
pass that is differentiated.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from podium.losses import masked
from podium.models.heads import apply_head
from podium.parallel.rows import ALL, Rows
from podium.rlhf.experience import Experience, make_experience
from podium.rlhf.networks import Bases, Network, Weights
from podium.rlhf.objective import Statistics
from podium.rlhf.rollout import Rollout, trunk_of
from podium.rlhf.spec import PpoSpec
from podium.rlhf.state import PpoState
from podium.training.accumulate import sum_over

Tree = Any


class ScoredRollout(NamedTuple):
    """A rollout with the reference's log-probabilities [batch, response] and scores [batch], as given and adjusted."""

    rollout: Rollout
    ref_logprobs: jax.Array
    raw_scores: jax.Array
    scores: jax.Array


def _evaluate(
    spec: PpoSpec, bases: Bases, weights: dict[str, Weights], rollout: Rollout
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Log-probabilities, values and entropies [batch, response] under the weights being trained."""

    def states(network: Network, trained: Weights) -> jax.Array:
        return network.response_states(bases, trained, rollout.text, trunk=trunk_of(spec, rollout))

    hidden = states(spec.policy, weights["policy"])
    logprobs, entropies = spec.policy.token_statistics(
        bases, weights["policy"], hidden, rollout.text.response_ids, temperature=spec.sampling.temperature
    )
    if spec.critic is None:
        values = apply_head(weights["policy"]["head"], hidden)
    else:
        values = apply_head(weights["critic"]["head"], states(spec.critic, weights["critic"]))
    return logprobs, values, entropies


def _evaluate_in_parts(
    spec: PpoSpec, bases: Bases, weights: dict[str, Weights], rollout: Rollout
) -> tuple[jax.Array, jax.Array]:
    """Old log-probabilities and values, in parts of a micro-batch's size.

    It bounds memory by what the updates need anyway, and products of equal shapes round alike: the first update's ratio
    is 1 to the last bit. Parts interleave the rows, so that rows stay on their devices.
    """
    parts = spec.num_mini_batches * spec.gradient_accumulation_steps

    def split(x: jax.Array) -> jax.Array:
        return jnp.swapaxes(x.reshape(-1, parts, *x.shape[1:]), 0, 1)

    def join(x: jax.Array) -> jax.Array:
        return jnp.swapaxes(x, 0, 1).reshape(-1, *x.shape[2:])

    evaluated = jax.lax.map(lambda part: _evaluate(spec, bases, weights, part)[:2], jax.tree.map(split, rollout))
    logprobs, values = jax.tree.map(join, evaluated)
    return logprobs, values


def _experience(
    spec: PpoSpec, state: PpoState, scored: ScoredRollout, logprobs: jax.Array, values: jax.Array, rows: Rows
) -> tuple[Experience, jax.Array, dict[str, jax.Array]]:
    """Experience of the rows at hand, the number of all sampled tokens, and metrics over all rows."""
    mask, finished = scored.rollout.response_mask, scored.rollout.finished
    local = (logprobs, values, scored.ref_logprobs, scored.raw_scores, scored.scores, mask, finished)
    logprobs, values, ref_logprobs, raw_scores, scores, mask, finished = rows.all_gather(local)
    experience, metrics = make_experience(
        logprobs, values, ref_logprobs, scores, mask, kl_coef=state.kl_coef, spec=spec.rewards
    )
    metrics["objective/scores_raw"] = jnp.mean(raw_scores)
    metrics["objective/scores_std"] = jnp.std(raw_scores)
    metrics["val/num_eos_tokens"] = jnp.sum(finished.astype(jnp.int32))
    experience = rows.local(experience)
    return experience, masked.count(mask), metrics | {"row_logprobs": experience.logprobs}


def _apply(
    optimizers: dict[str, optax.GradientTransformation], weights: Tree, optimizer: Tree, gradients: Tree
) -> tuple[Tree, Tree, dict[str, jax.Array]]:
    """One optimizer step for each network, with its own optimizer and its own clipped norm."""
    new_weights, new_optimizer, norms = {}, {}, {}
    for name, gradient in gradients.items():
        updates, new_optimizer[name] = optimizers[name].update(gradient, optimizer[name], weights[name])
        new_weights[name] = optax.apply_updates(weights[name], updates)
        norms[f"{name}/grad_norm"] = optax.global_norm(gradient)
    return new_weights, new_optimizer, norms


def minibatch_updates(
    spec: PpoSpec, optimizers: Any, state: PpoState, bases: Bases, scored: ScoredRollout, key: jax.Array
) -> tuple[Tree, Tree, dict[str, jax.Array], dict[str, jax.Array]]:
    """Epochs x minibatches of updates; returns weights, optimizer, metrics, and statistics [updates] by name."""
    rollout = scored.rollout
    logprobs, values = _evaluate_in_parts(spec, bases, state.weights, rollout)
    experience, _, metrics = _experience(spec, state, scored, logprobs, values, ALL)

    def loss(weights: Tree, part: tuple[Rollout, Experience], total: jax.Array) -> tuple[jax.Array, Any]:
        micro, learned = part
        logprobs, values, entropies = _evaluate(spec, bases, weights, micro)
        return spec.objective(logprobs, values, entropies, learned, micro.response_mask, total)

    def gradient(weights: Tree, total: jax.Array, rows: jax.Array) -> tuple[Tree, Statistics]:
        part = jax.tree.map(lambda x: jnp.take(x, rows, axis=0), (rollout, experience))
        return jax.grad(loss, has_aux=True)(weights, part, total)

    def update(carry: tuple[Tree, Tree], rows: jax.Array) -> tuple[tuple[Tree, Tree], dict[str, jax.Array]]:
        """Over micro-batches, whose gradients add up exactly."""
        weights, optimizer = carry
        total = masked.count(rollout.response_mask[rows.reshape(-1)])
        if spec.gradient_accumulation_steps == 1:
            gradients, stats = gradient(weights, total, rows[0])
        else:
            gradients, stats = sum_over(functools.partial(gradient, weights, total), rows)
        weights, optimizer, norms = _apply(optimizers, weights, optimizer, gradients)
        return (weights, optimizer), stats.named() | norms

    orders = _orders(spec, rollout, key)
    (weights, optimizer), stats = jax.lax.scan(update, (state.weights, state.optimizer), orders)
    return weights, optimizer, metrics, stats


def whole_updates(
    spec: PpoSpec, optimizers: Any, state: PpoState, bases: Bases, scored: ScoredRollout, rows: Rows
) -> tuple[Tree, Tree, dict[str, jax.Array], dict[str, jax.Array]]:
    """One update per epoch, on the whole rollout; returns as `minibatch_updates` does.

    The first update makes the experience of what it evaluates. Rows apart are micro-batches, one on each device: their
    gradients and statistics add up.
    """
    rollout = scored.rollout

    def loss(weights: Tree, known: Any) -> tuple[jax.Array, Any]:
        logprobs, values, entropies = _evaluate(spec, bases, weights, rollout)
        if known is None:
            evaluated = jax.lax.stop_gradient((logprobs, values))
            known = _experience(spec, state, scored, *evaluated, rows)
        experience, total, _ = known
        loss, stats = spec.objective(logprobs, values, entropies, experience, rollout.response_mask, total)
        return loss, (known, stats)

    def update(weights: Tree, optimizer: Tree, known: Any = None) -> tuple[Tree, Tree, Any, dict[str, jax.Array]]:
        gradients, (known, stats) = jax.grad(loss, has_aux=True)(weights, known)
        gradients, stats = rows.total((gradients, stats))
        weights, optimizer, norms = _apply(optimizers, weights, optimizer, gradients)
        return weights, optimizer, known, stats.named() | norms

    weights, optimizer, known, first = update(state.weights, state.optimizer)
    stats = {name: value[None] for name, value in first.items()}
    if spec.num_ppo_epochs > 1:

        def again(carry: tuple[Tree, Tree], _: None) -> tuple[tuple[Tree, Tree], dict[str, jax.Array]]:
            updated = update(*carry, known)
            return updated[:2], updated[-1]

        (weights, optimizer), more = jax.lax.scan(again, (weights, optimizer), None, length=spec.num_ppo_epochs - 1)
        stats = jax.tree.map(lambda one, others: jnp.concatenate([one, others]), stats, more)
    return weights, optimizer, known[-1], stats


def _orders(spec: PpoSpec, rollout: Rollout, key: jax.Array) -> jax.Array:
    """Rows of each micro-batch of each update [updates, micro-batches, rows], shuffled anew in each epoch."""
    keys = jax.random.split(key, spec.num_ppo_epochs)
    batch = rollout.finished.shape[0]
    orders = jax.vmap(lambda epoch_key: jax.random.permutation(epoch_key, batch))(keys)
    return orders.reshape(spec.num_ppo_epochs * spec.num_mini_batches, spec.gradient_accumulation_steps, -1)
