"""One PPO step as one compiled program: rollout, scores, experience, several epochs of minibatch updates.

Differences from common implementations are options, never accidents: docs/rlhf.md. Where an update sees the whole
rollout (one minibatch, one micro-batch), the policy has not moved between sampling and the first one, so that its new
log-probabilities and values *are* the old ones: they are computed once, in the forward pass that is differentiated.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from podium.generation.decode import respond
from podium.generation.sampling import Sampling
from podium.losses import masked
from podium.losses.logprobs import entropy, token_logprobs
from podium.losses.ppo import adapt_kl_coef
from podium.models.heads import apply_head
from podium.models.text import Text, Trunk
from podium.parallel.rows import ALL, Rows
from podium.rlhf.experience import (
    Experience,
    RewardSpec,
    Rollout,
    ScoreScale,
    adjust_scores,
    make_experience,
)
from podium.rlhf.networks import Bases, Network, Weights
from podium.rlhf.objective import Statistics, objective
from podium.training.accumulate import sum_over

Tree = Any
# (frozen, rollout) -> scores [batch]; a reward model, or any function of the tokens.
ScoreFn = Callable[["Frozen", Rollout], jax.Array]


class Frozen(NamedTuple):
    """What a step reads and nobody trains: base trees by name, and the reward model's own weights."""

    bases: Bases
    reward: Weights


class PpoState(NamedTuple):
    """Everything a run carries from step to step; a checkpoint holds all of it.

    weights, optimizer: {"policy": ..., "critic": ...}; with a shared trunk the critic's head is in the policy and
    there is no "critic". kl_coef: float32 scalar. key: random state. step: int32, completed steps. scale: what scores
    are measured by, set once.
    """

    weights: dict[str, Weights]
    optimizer: dict[str, Any]
    kl_coef: jax.Array
    key: jax.Array
    step: jax.Array
    scale: ScoreScale


class Prompts(NamedTuple):
    """Left-padded prompts, ids and mask [batch, prompt]."""

    ids: jax.Array
    mask: jax.Array


class StepOutput(NamedTuple):
    """metrics: scalars by name; updates: the same statistics per update [epochs * minibatches]; rows: per sample."""

    metrics: dict[str, jax.Array]
    updates: dict[str, jax.Array]
    rows: dict[str, jax.Array]


@dataclass(frozen=True)
class PpoSpec:
    """Everything about the step that is fixed at compile time.

    trunk_layers: how many of the lowest layers are the same frozen ones in every network on the policy's base; what the
    rollout computed in them serves all of these. ending: what a response that was cut off is scored with behind it, the
    end token last; empty scores it as it is.
    """

    policy: Network
    reference: Network
    critic: Network | None
    rewards: RewardSpec
    sampling: Sampling
    max_new_tokens: int
    eos_ids: tuple[int, ...]
    pad_id: int
    num_ppo_epochs: int
    num_mini_batches: int
    gradient_accumulation_steps: int
    clip_range: float
    value_clip_range: float
    vf_coef: float
    kl_target: float | None
    kl_horizon: float
    unroll_decode: bool
    trunk_layers: int = 0
    ending: tuple[int, ...] = ()

    def trunk(self, rollout: Rollout) -> Trunk | None:
        """What networks on the policy's base need not compute again of a rollout, if anything."""
        if rollout.trunk_states is None or self.policy.base is None:
            return None
        return Trunk(rollout.trunk_states, self.trunk_layers, self.policy.base)

    @property
    def whole_updates(self) -> bool:
        """Whether every update sees the whole rollout at once."""
        return self.num_mini_batches * self.gradient_accumulation_steps == 1

    @property
    def objective(self) -> Callable[..., tuple[jax.Array, Statistics]]:
        """The loss of an update, which its arrays complete."""
        return functools.partial(
            objective, clip_range=self.clip_range, value_clip_range=self.value_clip_range, vf_coef=self.vf_coef
        )


def init_state(
    weights: dict[str, Weights],
    optimizers: dict[str, optax.GradientTransformation],
    *,
    kl_coef: float,
    key: jax.Array,
) -> PpoState:
    """Start of a run; `optimizers` has the keys of `weights`."""
    return PpoState(
        weights=weights,
        optimizer={name: optimizers[name].init(tree) for name, tree in weights.items()},
        kl_coef=jnp.asarray(kl_coef, jnp.float32),
        key=key,
        step=jnp.zeros((), jnp.int32),
        scale=ScoreScale.none(),
    )


def make_step(
    spec: PpoSpec, optimizers: dict[str, optax.GradientTransformation], score: ScoreFn, rows: Rows = ALL
) -> Callable[[PpoState, Frozen, Prompts], tuple[PpoState, StepOutput]]:
    """Build the pure step (state, frozen, prompts) -> (state, output); the caller jits it over its mesh.

    With `rows` apart it sees one device's prompts, and the caller maps it over the devices; updates are whole then.
    """

    def step(state: PpoState, frozen: Frozen, prompts: Prompts) -> tuple[PpoState, StepOutput]:
        rollout = roll_out(spec, frozen.bases, state, prompts, rows)
        return learn(spec, optimizers, state, frozen, rollout, score(frozen, rollout), rows)

    return step


class _Keys(NamedTuple):
    """Random streams of one step, and the state's next key."""

    following: jax.Array
    rollout: jax.Array
    order: jax.Array


def _keys(state: PpoState) -> _Keys:
    return _Keys(*jax.random.split(state.key, 3))


def roll_out(spec: PpoSpec, bases: Bases, state: PpoState, prompts: Prompts, rows: Rows = ALL) -> Rollout:
    """Let the policy answer each prompt: the first half of a step, which is pure."""
    network, weights = spec.policy, state.weights["policy"]
    keys = jax.random.split(_keys(state).rollout, prompts.ids.shape[0] * rows.count)
    responses = respond(
        network.config,
        network.params(bases, weights),
        prompts.ids,
        prompts.mask,
        rows.local(keys),
        max_new_tokens=spec.max_new_tokens,
        sampling=spec.sampling,
        eos_ids=spec.eos_ids,
        pad_id=spec.pad_id,
        adapter=weights.get("adapter"),
        lora=network.lora,
        unroll=spec.unroll_decode,
        trunk_layers=spec.trunk_layers,
        ending=spec.ending,
    )
    text = Text(prompts.ids, prompts.mask, responses.ids, responses.mask)
    return Rollout(text, responses.finished, responses.trunk_states, responses.trunk_ending)


def learn(
    spec: PpoSpec,
    optimizers: dict[str, optax.GradientTransformation],
    state: PpoState,
    frozen: Frozen,
    rollout: Rollout,
    scores: jax.Array,
    rows: Rows = ALL,
) -> tuple[PpoState, StepOutput]:
    """Learn from a rollout with its scores [batch]: the second half of a step, which is pure."""
    raw_scores = scores
    scores = adjust_scores(state.scale.apply(raw_scores), rollout.finished, spec.rewards)
    ref_logprobs = spec.reference.response_logprobs(
        frozen.bases,
        {},
        rollout.text,
        temperature=spec.sampling.temperature,
        trunk=spec.trunk(rollout),
    )
    scored = ScoredRollout(rollout, ref_logprobs, raw_scores, scores)
    keys = _keys(state)
    if spec.whole_updates:
        updated = _whole_updates(spec, optimizers, state, frozen.bases, scored, rows)
    else:
        assert rows == ALL, "minibatches are drawn from all rows"
        updated = _minibatch_updates(spec, optimizers, state, frozen.bases, scored, keys.order)
    weights, optimizer, metrics, stats = updated
    kl_coef = state.kl_coef
    if spec.kl_target is not None:
        batch = scores.shape[0] * rows.count
        kl_coef = adapt_kl_coef(kl_coef, metrics["objective/kl"], batch, target=spec.kl_target, horizon=spec.kl_horizon)
    metrics = metrics | {name: jnp.mean(values) for name, values in stats.items()}
    row_kl = jnp.sum(masked.fill(metrics.pop("row_logprobs") - ref_logprobs, rollout.response_mask), axis=1)
    ids, mask = rollout.text.joined()
    row = {"ids": ids, "mask": mask, "score": raw_scores, "kl": row_kl, "finished": rollout.finished}
    after = PpoState(weights, optimizer, kl_coef, keys.following, state.step + 1, state.scale)
    return after, StepOutput(metrics, stats, row)


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
        return network.response_states(bases, trained, rollout.text, trunk=spec.trunk(rollout))

    hidden = states(spec.policy, weights["policy"])
    logits = spec.policy.logits(bases, weights["policy"], hidden)
    temperature = spec.sampling.temperature
    logprobs = token_logprobs(logits, rollout.text.response_ids, temperature=temperature)
    if spec.critic is None:
        values = apply_head(weights["policy"]["head"], hidden)
    else:
        values = apply_head(weights["critic"]["head"], states(spec.critic, weights["critic"]))
    return logprobs, values, entropy(jax.lax.stop_gradient(logits), temperature=temperature)


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


def _minibatch_updates(
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


def _whole_updates(
    spec: PpoSpec, optimizers: Any, state: PpoState, bases: Bases, scored: ScoredRollout, rows: Rows
) -> tuple[Tree, Tree, dict[str, jax.Array], dict[str, jax.Array]]:
    """One update per epoch, on the whole rollout; returns as `_minibatch_updates` does.

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
