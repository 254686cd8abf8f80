"""One PPO step as one compiled program: rollout, scores, experience, several epochs of minibatch updates.

Differences from common implementations are options, never accidents: docs/rlhf.md.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from podium.losses import masked
from podium.losses.ppo import adapt_kl_coef
from podium.parallel.rows import ALL, Rows
from podium.rlhf.experience import adjust_scores
from podium.rlhf.rollout import Prompts, Rollout, roll_out, trunk_of
from podium.rlhf.spec import PpoSpec
from podium.rlhf.state import Frozen, PpoState, step_keys
from podium.rlhf.update import ScoredRollout, minibatch_updates, whole_updates

# (frozen, rollout) -> scores [batch]; a reward model, or any function of the tokens.
ScoreFn = Callable[["Frozen", Rollout], jax.Array]


class StepOutput(NamedTuple):
    """metrics: scalars by name; updates: the same statistics per update [epochs * minibatches]; rows: per sample."""

    metrics: dict[str, jax.Array]
    updates: dict[str, jax.Array]
    rows: dict[str, jax.Array]


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
        trunk=trunk_of(spec, rollout),
    )
    scored = ScoredRollout(rollout, ref_logprobs, raw_scores, scores)
    keys = step_keys(state)
    if spec.whole_updates:
        updated = whole_updates(spec, optimizers, state, frozen.bases, scored, rows)
    else:
        assert rows == ALL, "minibatches are drawn from all rows"
        updated = minibatch_updates(spec, optimizers, state, frozen.bases, scored, keys.order)
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
