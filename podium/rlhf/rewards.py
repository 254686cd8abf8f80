"""What PPO is rewarded with: a reward model's scores of rollouts, measured by those of the starting policy."""

import functools
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from podium.parallel import placement
from podium.parallel.alike import alike
from podium.rlhf.experience import ScoreScale
from podium.rlhf.networks import Network
from podium.rlhf.ppo import ScoreFn
from podium.rlhf.prompt_batches import PromptBatches
from podium.rlhf.reward import fold_normalisation
from podium.rlhf.rollout import Rollout, roll_out, trunk_of
from podium.rlhf.spec import PpoSpec
from podium.rlhf.state import Frozen, PpoState
from podium.rlhf.text_scoring import HostScorer, Scorer
from podium.training.progress import Progress


def reward_scores(network: Network, spec: PpoSpec) -> ScoreFn:
    """Score with a reward model; gain and bias are folded into its head.

    A response that was cut off is read with `spec.ending` behind it: the model has learnt from texts that end, and its
    score of one that does not says little.
    """

    def score(frozen: Frozen, rollout: Rollout) -> jax.Array:
        text, trunk = rollout.text, trunk_of(spec, rollout)
        if spec.ending:
            text = text.with_ending(spec.ending, ~rollout.finished)
            if trunk is not None:
                assert rollout.trunk_ending is not None, "the rollout kept what the lowest layers made of the ending"
                trunk = replace(trunk, states=jnp.concatenate([trunk.states, rollout.trunk_ending], axis=1))
        return network.scores(frozen.bases, frozen.reward, text, trunk=trunk)

    return score


def scorer(score: ScoreFn | HostScorer, mesh: Mesh) -> Scorer:
    """Give a score of the tokens, or of the texts, as a program of its own."""
    if isinstance(score, HostScorer):
        return score.compiled(mesh)
    program = alike("the scores", jax.jit(score, out_shardings=placement.whole(mesh)))
    return lambda frozen, rows, rollout: program(frozen, rollout)


def measure_scores(
    spec: PpoSpec,
    frozen: Frozen,
    state: PpoState,
    batches: PromptBatches,
    score: Scorer,
    *,
    samples: int,
    mesh: Mesh,
) -> ScoreScale:
    """Mean and deviation of the scores of `samples` answers, in whole batches, of the policy in `state`.

    Rewards are then worth the same whatever the reward model's units, and start at mean 0 on the prompts, temperature
    and length of this run (Ziegler et al. 2019, section 2.1, normalise on samples of the starting policy too). 0
    samples leave scores as they are.
    """
    if not samples:
        return ScoreScale.none()
    sample = alike("the answers to normalise on", jax.jit(functools.partial(roll_out, spec)))
    count = -(-samples // batches.size)
    # Apart from the streams of the steps, which split the key.
    keys = jax.random.split(jax.random.fold_in(state.key, count), count)
    scores = []
    with Progress(count * batches.size, "ppo: answers to normalise on", unit="answer") as progress:
        for index, key in enumerate(keys):
            prompts = jax.tree.map(lambda x: x[0], batches.at([index], 1))
            rollout = sample(frozen.bases, state._replace(key=key), placement.place_batch(mesh, prompts))
            scores.append(placement.fetch(score(frozen, batches.rows(index), rollout)))
            progress.update((index + 1) * batches.size)
    return ScoreScale.of(jnp.asarray(np.concatenate(scores)))


def measured_by(state: PpoState, scale: ScoreScale, *, critic_scores: bool) -> PpoState:
    """Start a run whose scores are measured by `scale`, and with them a critic that starts from the reward model."""
    # From the host: what it is put beside may lie on the devices of several processes.
    scale = ScoreScale(*map(np.asarray, scale))  # type: ignore[arg-type]  # JAX takes NumPy arrays
    state = state._replace(scale=_in_place_of(state.scale, scale))
    weights = state.weights
    if critic_scores and "critic" in weights:
        head = fold_normalisation(weights["critic"]["head"], 1.0 / scale.std, -scale.mean / scale.std)
        head = _in_place_of(weights["critic"]["head"], head)
        weights = weights | {"critic": weights["critic"] | {"head": head}}
    return state._replace(weights=weights)


def _in_place_of(old: Any, new: Any) -> Any:
    """Lay new arrays out on the devices as the old ones are."""
    return jax.tree.map(lambda before, after: jax.device_put(after, before.sharding), old, new)
