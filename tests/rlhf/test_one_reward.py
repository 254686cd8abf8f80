"""A response has one reward, wherever it is asked: in a rollout, packed with others or alone, cut off or ended."""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from podium.config import CriticConfig, LoraConfig, PpoConfig
from podium.models import Model, family, load
from podium.models.heads import init_head
from podium.models.lora import lora_spec
from podium.models.text import Text
from podium.parallel.mesh import make_mesh
from podium.rlhf.layout import place
from podium.rlhf.ppo import learn
from podium.rlhf.prompt_batches import PromptBatches
from podium.rlhf.rewards import measure_scores, measured_by, reward_scores, scorer
from podium.rlhf.roles import fill_roles, make_roles, ppo_spec, reward_network
from podium.rlhf.rollout import roll_out
from podium.rlhf.scoring import encode_answers, score, score_ids
from podium.rlhf.state import init_state
from support import folders

ROWS = 32
NEW_TOKENS = 5
# Policy and reward model share layers (a rollout keeps what they made of each token), or the reward model has weights
# of its own, or both are full copies, or a T5.
KINDS = {
    "shared-layers": {"r": 2, "layers": 1},
    "own-layers": {"r": 2, "layers": 1},
    "all-weights": None,
    "encoder-decoder": {"r": 2},
}


def models_of(kind: str, folder: Path) -> tuple[Model, Model]:
    write = folders.write_t5_folder if kind == "encoder-decoder" else folders.write_folder
    policy = load(write(folder / "model"))
    reward = policy.replace(role="reward", head=init_head(policy.config, jax.random.key(5)), gain=1.5, bias=-0.25)
    if kind == "own-layers":
        reward = reward.replace(params=jax.tree.map(lambda x: 1.3 * x + 0.02, reward.params))
    elif KINDS[kind]:
        spec = lora_spec(LoraConfig(**KINDS[kind]))
        adapter = family.init_adapter(policy.config, spec, jax.random.key(6))
        adapter = jax.tree.map(lambda x: x + 0.05, adapter)
        reward = reward.replace(lora=spec, adapter=adapter)
    return policy, reward


class Run:
    """A rollout of the starting policy, with what PPO scores it by."""

    def __init__(self, kind: str, folder: Path, read_at: str = "end", critic: str = "policy") -> None:
        self.policy, self.reward = models_of(kind, folder)
        self.reward = self.reward.replace(read_at=read_at)
        tokenizer = self.policy.tokenizer
        lora = LoraConfig(**KINDS[kind]) if KINDS[kind] else None
        config = PpoConfig(max_new_tokens=NEW_TOKENS, lora=lora, critic=CriticConfig(init=critic))
        roles = make_roles(self.policy.config, reward_network(self.reward, self.policy), config)
        ending = tokenizer.ending if read_at == "end" else ()
        self.spec = ppo_spec(roles, config, tokenizer.eos_ids, tokenizer.pad_id, ending)
        words = [f"{number} and {number * 7 % 13}" for number in range(ROWS)]
        self.prompts = [tokenizer.encode_prompt([{"role": "user", "content": text}]) for text in words]
        self.batches = PromptBatches.of(self.prompts, ROWS, 0, tokenizer.pad_id)
        self.mesh = make_mesh(devices=jax.devices()[:1])
        self.optimizers = {name: optax.sgd(1e-3) for name in roles.trained}
        start = functools.partial(
            init_state, optimizers=self.optimizers, kl_coef=config.kl_coef, key=jax.random.fold_in(jax.random.key(0), 2)
        )
        filled = fill_roles(roles, self.policy, self.reward, 0)
        self.frozen, self.state = place(self.mesh, roles, self.optimizers, *filled, start)
        self.score = reward_scores(roles.reward, self.spec)
        batch = jax.tree.map(lambda x: jnp.asarray(x[0]), self.batches.at([0], 1))
        self.rollout = jax.jit(lambda state, prompts: roll_out(self.spec, self.frozen.bases, state, prompts))(
            self.state, batch
        )
        self.rows = self.batches.rows(0)
        if not np.asarray(self.rollout.finished).any():
            self.end_some()

    def end_some(self) -> None:
        """Let every third response end early: this policy never writes an end by itself."""
        assert self.rollout.trunk_states is None, "the rollout's own texts count where layers are shared"
        ends = np.arange(ROWS) % 3 == 0
        text, tokenizer = self.rollout.text, self.policy.tokenizer
        ids, mask = np.array(text.response_ids), np.array(text.response_mask)
        ids[ends, 2], ids[ends, 3:], mask[ends, 3:] = tokenizer.end_id, tokenizer.pad_id, False
        text = text._replace(response_ids=jnp.asarray(ids), response_mask=jnp.asarray(mask))
        self.rollout = self.rollout._replace(text=text, finished=jnp.asarray(ends))

    @property
    def answers(self) -> list[list[int]]:
        ids, mask = np.asarray(self.rollout.text.response_ids), np.asarray(self.rollout.response_mask)
        return [row[real].tolist() for row, real in zip(ids, mask, strict=True)]

    def alone(self, row: int, response: list[int]) -> float:
        """The reward of one text by itself: no padding, no batch, no packing."""
        ids = [jnp.asarray([part], jnp.int32) for part in (self.prompts[self.rows[row]], response)]
        text = Text(ids[0], jnp.ones(ids[0].shape, bool), ids[1], jnp.ones(ids[1].shape, bool))
        reward = self.reward
        state = family.last_states(reward.config, reward.params, text, adapter=reward.adapter, lora=reward.lora)[0]
        raw = np.dot(np.asarray(state), np.asarray(reward.head["kernel"])) + float(reward.head["bias"])
        return reward.gain * float(raw) + reward.bias


@pytest.mark.parametrize("kind", KINDS)
def test_every_place_gives_one_number(kind: str, tmp_path: Path) -> None:
    run = Run(kind, tmp_path)
    finished = np.asarray(run.rollout.finished)
    assert 0 < finished.sum() < ROWS, "some end, some are cut off"
    end = run.policy.tokenizer.end_id
    expected = [
        run.alone(row, answer if done else [*answer, end])
        for row, (answer, done) in enumerate(zip(run.answers, finished, strict=True))
    ]
    assert np.ptp(expected) > 0.1
    # PPO, in the program of a step.
    np.testing.assert_allclose(jax.jit(run.score)(run.frozen, run.rollout), expected, rtol=1e-4, atol=1e-4)
    # `score`, of many at a time and of one.
    prompts = [run.prompts[row] for row in run.rows]
    np.testing.assert_allclose(score(run.reward, prompts, run.answers), expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(score(run.reward, prompts[:1], run.answers[:1]), expected[:1], rtol=1e-4, atol=1e-4)
    # Evaluation and the reference samples that a reward model is normalised on.
    examples = encode_answers(run.reward, run.policy.tokenizer, prompts, run.answers)
    raw = score_ids(run.reward, examples, batch_size=8)
    np.testing.assert_allclose(run.reward.gain * raw + run.reward.bias, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["shared-layers", "own-layers"])
def test_a_critic_of_the_reward_model_reads_its_own_layers(kind: str, tmp_path: Path) -> None:
    """Seen to fail: own-layers, with the policy's layers in place of the critic's."""
    run = Run(kind, tmp_path, critic="reward")
    assert run.rollout.trunk_states is not None, "the policy's layers were kept"
    scores = jnp.arange(ROWS) / 9
    step = jax.jit(lambda rollout: learn(run.spec, run.optimizers, run.state, run.frozen, rollout, scores)[1].metrics)
    kept = step(run.rollout)
    computed = step(run.rollout._replace(trunk_states=None, trunk_ending=None))
    for name in ("loss/value_avg", "val/explained_variance", "objective/kl"):
        np.testing.assert_allclose(kept[name], computed[name], rtol=1e-3, atol=1e-5, err_msg=name)


def test_read_at_last_scores_a_cut_response_at_its_last_token(tmp_path: Path) -> None:
    run = Run("shared-layers", tmp_path, read_at="last")
    expected = [run.alone(row, answer) for row, answer in enumerate(run.answers)]
    np.testing.assert_allclose(jax.jit(run.score)(run.frozen, run.rollout), expected, rtol=1e-4, atol=1e-4)
    prompts = [run.prompts[row] for row in run.rows]
    np.testing.assert_allclose(score(run.reward, prompts, run.answers), expected, rtol=1e-4, atol=1e-4)
    at_end = score(run.reward.replace(read_at="end"), prompts, run.answers)
    cut = ~np.asarray(run.rollout.finished)
    assert np.abs(at_end - expected)[cut].min() > 1e-3


def test_scores_are_measured_by_the_starting_policys(tmp_path: Path) -> None:
    run = Run("shared-layers", tmp_path, critic="reward")
    judge = scorer(run.score, run.mesh)
    scale = measure_scores(run.spec, run.frozen, run.state, run.batches, judge, samples=2 * ROWS - 1, mesh=run.mesh)
    scores = np.asarray(run.score(run.frozen, run.rollout))
    # Another rollout of the same policy: alike, not equal.
    assert abs(float(scale.mean) - scores.mean()) < 3 * scores.std() / np.sqrt(ROWS)
    np.testing.assert_allclose(scale.std, scores.std(), rtol=0.5)
    measured = scale.apply(jnp.asarray(scores))
    assert abs(float(measured.mean())) < 0.5 and abs(float(measured.std()) - 1) < 0.5
    before, after = run.state, measured_by(run.state, scale, critic_scores=True)
    head, folded = before.weights["critic"]["head"], after.weights["critic"]["head"]
    states = jax.random.normal(jax.random.key(1), (3, run.policy.config.embed))
    values = [states @ each["kernel"] + each["bias"] for each in (head, folded)]
    np.testing.assert_allclose(values[1], scale.apply(values[0]), rtol=1e-4, atol=1e-4)
    same = measured_by(run.state, scale, critic_scores=False).weights["critic"]["head"]
    np.testing.assert_array_equal(same["kernel"], head["kernel"])
    none = measure_scores(run.spec, run.frozen, run.state, run.batches, judge, samples=0, mesh=run.mesh)
    assert (float(none.mean), float(none.std)) == (0.0, 1.0)
