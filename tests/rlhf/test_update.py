"""The one loop of updates, with an algorithm that has no critic, beside loops over Python floats.

RLOO (Ahmadian et al. 2024): the advantage of an answer is its reward less the mean of the other answers' to the prompt.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec

from podium.losses import masked
from podium.parallel.mesh import make_mesh
from podium.parallel.rows import ALL, rows_apart
from podium.rlhf.experience import Predictions, ScoredRollout
from podium.rlhf.update import Algorithm, Trained, Updated, UpdateSchedule, run_updates

PROMPTS, SAMPLES, TIME, VOCAB = 2, 4, 3, 5
ROWS, KL_COEF, RATE = PROMPTS * SAMPLES, 0.3, 0.7
KEY = jax.random.key(3)


class Answers(NamedTuple):
    """Of a policy that is a table: every token of an answer has the logits of its prompt."""

    prompt: jax.Array
    ids: jax.Array


class Advantages(NamedTuple):
    logprobs: jax.Array
    advantages: jax.Array


class PolicyLoss(NamedTuple):
    loss: jax.Array
    ratio: jax.Array

    def named(self) -> dict[str, jax.Array]:
        return {"loss": self.loss, "ratio": self.ratio}


def predict(weights, answers: Answers) -> Predictions:
    logits = weights["policy"]["table"][answers.prompt]
    logprobs = jnp.take_along_axis(jax.nn.log_softmax(logits), answers.ids, axis=1)
    return Predictions(logprobs, None, None)


def leave_one_out(old: Predictions, scored: ScoredRollout):
    kl = jnp.sum(masked.fill(old.logprobs - scored.ref_logprobs, scored.mask), axis=1)
    rewards = (scored.scores - KL_COEF * kl).reshape(PROMPTS, SAMPLES)
    others = (jnp.sum(rewards, axis=1, keepdims=True) - rewards) / (SAMPLES - 1)
    advantages = jnp.broadcast_to((rewards - others).reshape(-1, 1), scored.mask.shape)
    return Advantages(old.logprobs, advantages), {"reward": jnp.mean(rewards)}


def policy_only(predictions: Predictions, experience: Advantages, mask: jax.Array, total: jax.Array):
    ratio = jnp.exp(predictions.logprobs - experience.logprobs)
    loss = masked.mean(-experience.advantages * ratio, mask, total=total)
    return loss, jax.lax.stop_gradient(PolicyLoss(loss, masked.mean(ratio, mask, total=total)))


RLOO = Algorithm(lambda weights: weights, predict, leave_one_out, policy_only)


def given() -> tuple[np.ndarray, Answers, ScoredRollout]:
    rng = np.random.default_rng(0)
    table = rng.normal(size=(PROMPTS, VOCAB)).astype(np.float32)
    answers = Answers(np.repeat(np.arange(PROMPTS), SAMPLES), rng.integers(0, VOCAB, (ROWS, TIME)))
    mask = np.arange(TIME) < np.array([3, 1, 2, 3, 2, 2, 1, 3])[:, None]
    scores = rng.normal(size=ROWS).astype(np.float32)
    ref_logprobs = rng.normal(-1.5, 0.5, (ROWS, TIME)).astype(np.float32)
    return table, answers, ScoredRollout(mask, mask[:, -1], ref_logprobs, scores, scores)


def log_softmax(logits: list[float]) -> list[float]:
    total = math.log(sum(math.exp(x) for x in logits))
    return [x - total for x in logits]


def slow_updates(table, answers: Answers, scored: ScoredRollout, orders) -> tuple[list[list[float]], list[float]]:
    """Plain gradient descent; the table after all updates, and each update's loss."""
    table = [[float(x) for x in row] for row in table]
    old = [[log_softmax(table[p])[token] for token in ids] for p, ids in zip(answers.prompt, answers.ids, strict=True)]
    rewards = [
        float(scored.scores[row])
        - KL_COEF * sum(old[row][t] - float(scored.ref_logprobs[row][t]) for t in range(TIME) if scored.mask[row][t])
        for row in range(ROWS)
    ]
    losses = []
    for update in orders:
        gradient = [[0.0] * VOCAB for _ in range(PROMPTS)]
        total, loss = sum(int(scored.mask[row].sum()) for row in update), 0.0
        for row in update:
            prompt = int(answers.prompt[row])
            others = [rewards[o] for o in range(ROWS) if answers.prompt[o] == prompt and o != row]
            advantage, now = rewards[row] - sum(others) / len(others), log_softmax(table[prompt])
            for t in range(TIME):
                if scored.mask[row][t]:
                    token = int(answers.ids[row][t])
                    weight = -advantage * math.exp(now[token] - old[row][t]) / total
                    loss += weight
                    for v in range(VOCAB):
                        gradient[prompt][v] += weight * ((v == token) - math.exp(now[v]))
        table = [[x - RATE * g for x, g in zip(*rows, strict=True)] for rows in zip(table, gradient, strict=True)]
        losses.append(loss)
    return table, losses


def updates(algorithm: Algorithm, schedule: UpdateSchedule, rows=ALL, mesh=None) -> Updated:
    table, answers, scored = given()
    optimizers = {"policy": optax.sgd(RATE)}
    weights = {"policy": {"table": jnp.asarray(table)}}
    trained = Trained(weights, {"policy": optimizers["policy"].init(weights["policy"])})
    run = functools.partial(run_updates, algorithm, schedule, optimizers)
    if mesh is None:
        return jax.jit(run)(trained, answers, scored, KEY)
    each, same = PartitionSpec(rows.axes), PartitionSpec()
    apart = jax.shard_map(
        functools.partial(run, rows=rows),
        mesh=mesh,
        in_specs=(same, each, each, same),
        out_specs=Updated(same, each, same, same),
        check_vma=False,
    )
    return jax.jit(apart)(trained, answers, scored, KEY)


def orders_of(schedule: UpdateSchedule) -> list[list[int]]:
    """Rows of each update: all of them, or parts of a permutation drawn for each epoch."""
    if schedule.whole:
        return [list(range(ROWS))] * schedule.epochs
    keys = jax.random.split(KEY, schedule.epochs)
    epochs = [np.asarray(jax.random.permutation(key, ROWS)).reshape(schedule.mini_batches, -1) for key in keys]
    return [part.tolist() for epoch in epochs for part in epoch]


@pytest.mark.parametrize(
    ("schedule", "devices"), [((3, 1, 1), 1), ((3, 1, 1), 8), ((2, 2, 1), 1), ((2, 2, 2), 1), ((1, 1, 4), 1)], ids=str
)
def test_an_algorithm_without_a_critic_runs_in_the_same_loop(schedule: tuple[int, int, int], devices: int) -> None:
    plan = UpdateSchedule(*schedule)
    mesh = make_mesh(data=8, fsdp=1) if devices > 1 else None
    updated = updates(RLOO, plan, rows_apart(mesh) if mesh else ALL, mesh)
    table, losses = slow_updates(*given(), orders_of(plan))
    np.testing.assert_allclose(updated.trained.weights["policy"]["table"], table, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(updated.statistics["loss"], losses, rtol=1e-4, atol=1e-6)
    assert updated.old.values is None
    assert np.abs(np.asarray(table) - given()[0]).max() > 0.03, "the updates moved the policy"


@pytest.mark.parametrize(("schedule", "passes"), [((1, 1, 1), 1), ((4, 1, 1), 2), ((1, 2, 1), 2)], ids=str)
def test_a_whole_rollout_needs_no_forward_pass_of_its_own_for_old_predictions(schedule, passes: int) -> None:
    """Counted where the program is made: a loop's body counts once."""
    calls = []

    def counted(weights, answers: Answers) -> Predictions:
        calls.append(answers)
        return predict(weights, answers)

    updated = updates(
        Algorithm(lambda weights: weights, counted, leave_one_out, policy_only), UpdateSchedule(*schedule)
    )
    assert len(calls) == passes
    assert schedule[1] > 1 or float(updated.statistics["ratio"][0]) == 1.0
