"""One PPO step as one compiled program: rollout, scores, experience, several epochs of minibatch updates.

Differences from common implementations are options, never accidents: docs/rlhf.md.
"""

import functools
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from podium.losses import masked
from podium.losses.ppo import adapt_kl_coef
from podium.models.heads import apply_head
from podium.parallel.phases import phase
from podium.parallel.rows import ALL, Rows
from podium.rlhf.experience import Predictions, ScoredRollout, adjust_scores, make_experience
from podium.rlhf.networks import Bases, Network, Weights
from podium.rlhf.rollout import Prompts, Rollout, roll_out, trunk_of
from podium.rlhf.spec import PpoSpec
from podium.rlhf.state import Frozen, PpoState, step_keys
from podium.rlhf.update import Algorithm, Trained, run_updates

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
        # The loop of single tokens inside it is a part of its own, "decode".
        with phase("prefill"):
            rollout = roll_out(spec, frozen.bases, state, prompts, rows)
        with phase("reward"):
            scores = score(frozen, rollout)
        return learn(spec, optimizers, state, frozen, rollout, scores, rows)

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
    with phase("reference"):
        ref_logprobs = spec.reference.response_logprobs(
            frozen.bases,
            {},
            rollout.text,
            temperature=spec.sampling.temperature,
            trunk=trunk_of(spec, rollout),
        )
    mask, finished = rollout.response_mask, rollout.finished
    adjusted = adjust_scores(state.scale.apply(scores), finished, spec.rewards)
    scored = ScoredRollout(mask, finished, ref_logprobs, scores, adjusted)
    algorithm = Algorithm(
        compute=spec.compute,
        predict=functools.partial(predict, spec, frozen.bases),
        experience=functools.partial(make_experience, kl_coef=state.kl_coef, spec=spec.rewards),
        objective=spec.objective,
    )
    keys, trained = step_keys(state), Trained(state.weights, state.optimizer)
    trained, old, metrics, statistics = run_updates(
        algorithm, spec.schedule, optimizers, trained, rollout, scored, keys.order, rows
    )
    kl_coef = state.kl_coef
    if spec.kl_target is not None:
        batch = scores.shape[0] * rows.count
        kl_coef = adapt_kl_coef(kl_coef, metrics["objective/kl"], batch, target=spec.kl_target, horizon=spec.kl_horizon)
    metrics = metrics | {name: jnp.mean(values) for name, values in statistics.items()}
    ids, text_mask = rollout.text.joined()
    kl = jnp.sum(masked.fill(old.logprobs - ref_logprobs, mask), axis=1)
    row = {"ids": ids, "mask": text_mask, "score": scores, "kl": kl, "finished": finished}
    after = PpoState(*trained, kl_coef, keys.following, state.step + 1, state.scale)
    return after, StepOutput(metrics, statistics, row)


def predict(spec: PpoSpec, bases: Bases, weights: Mapping[str, Weights], rollout: Rollout) -> Predictions:
    """Log-probabilities, values and entropies under the weights being trained."""

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
    return Predictions(logprobs, values, entropies)
