"""A policy and a reward model of different families, tokenizers and templates: scores are those of the texts."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from podium.config import PpoConfig
from podium.data.records import PromptRecord
from podium.errors import UserError
from podium.models import Model, family, load
from podium.models.heads import init_head
from podium.models.packing import Example
from podium.models.text import Text
from podium.parallel.mesh import make_mesh
from podium.rlhf.ppo_training import PpoRun, train_ppo
from podium.rlhf.scoring import score, score_ids
from support import folders

PROMPTS = [[{"role": "user", "content": text}] for text in ("one", "and two", "a third", "4th?", "five five", "six")]
POLICIES = ("decoder", "encoder-decoder")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Model]:
    here = tmp_path_factory.mktemp("models")
    return {
        "decoder": load(folders.write_folder(here / "decoder")),
        "encoder-decoder": load(folders.write_t5_folder(here / "t5")),
    }


def as_reward(model: Model) -> Model:
    return model.replace(role="reward", head=init_head(model.config, jax.random.key(5)), gain=1.5, bias=-0.25)


def run_of(folder: Path, **changes: object) -> PpoRun:
    settings = {
        "max_steps": 2,
        "per_device_batch_size": 4,
        "num_ppo_epochs": 1,
        "max_new_tokens": 6,
        "lora": {"r": 2},
        "critic": {"init": "policy"},
        "sample_rows": 4,
    }
    mesh = make_mesh(devices=jax.devices()[:1])
    config = PpoConfig(**settings | changes)
    return PpoRun(config, 3, mesh, folder, str(folder / "checkpoints"), "test", folder / "rollouts.jsonl")


def alone(reward: Model, prompt: list[dict[str, str]], answer: str, end: bool) -> float:
    """The reward of one text by itself: its own tokens, no padding, no batch, no packing."""
    parts = reward.tokenizer.encode_prompt(prompt), reward.tokenizer.encode_response(answer, end=end)
    ids = [jnp.asarray([part], jnp.int32).reshape(1, -1) for part in parts]
    text = Text(ids[0], jnp.ones(ids[0].shape, bool), ids[1], jnp.ones(ids[1].shape, bool))
    state = family.last_states(reward.config, reward.params, text)[0]
    raw = np.dot(np.asarray(state), np.asarray(reward.head["kernel"])) + float(reward.head["bias"])
    return reward.gain * float(raw) + reward.bias


@pytest.mark.parametrize("kind", POLICIES)
def test_scores_are_those_of_the_reward_model_alone_on_the_texts(
    kind: str, models: dict[str, Model], tmp_path: Path
) -> None:
    policy, reward = models[kind], as_reward(next(model for name, model in models.items() if name != kind))
    prompts = [PromptRecord(id=str(number), prompt=prompt) for number, prompt in enumerate(PROMPTS)]
    trained = train_ppo(policy, reward, prompts, run_of(tmp_path))
    assert any(np.abs(np.asarray(leaf)).max() > 0 for leaf in jax.tree.leaves(trained.adapter))
    rows = [json.loads(line) for line in (tmp_path / "rollouts.jsonl").read_text("utf-8").splitlines()]
    assert len(rows) == 8
    rendered = {policy.tokenizer.decode(policy.tokenizer.encode_prompt(prompt)): prompt for prompt in PROMPTS}
    expected = [alone(reward, rendered[row["prompt"]], row["response"], end=True) for row in rows]
    assert np.ptp(expected) > 0.1
    np.testing.assert_allclose([row["score"] for row in rows], expected, rtol=0, atol=1e-4)
    ended = [row for row in rows if row["finished"]]
    if ended:
        found = score(reward, [rendered[row["prompt"]] for row in ended], [row["response"] for row in ended])
        np.testing.assert_allclose([row["score"] for row in ended], found, rtol=0, atol=1e-4)


def test_such_a_reward_model_cannot_start_the_critic(models: dict[str, Model], tmp_path: Path) -> None:
    prompts = [PromptRecord(id="0", prompt=PROMPTS[0])]
    with pytest.raises(UserError, match=r"ppo\.critic\.init: .* reads other tokens than the policy; write policy"):
        train_ppo(models["decoder"], as_reward(models["encoder-decoder"]), prompts, run_of(tmp_path, critic={}))
    assert not list(tmp_path.iterdir())


def test_an_encoder_alone_has_no_values_for_single_tokens(models: dict[str, Model], tmp_path: Path) -> None:
    policy = models["encoder-decoder"]
    reward = as_reward(policy.replace(config=policy.config.replace(encoder_only=True)))
    prompts = [PromptRecord(id="0", prompt=PROMPTS[0])]
    with pytest.raises(UserError, match=r"ppo\.critic\.init: .* no value for single tokens; write policy"):
        train_ppo(policy, reward, prompts, run_of(tmp_path, critic={}))


def test_equal_texts_are_scored_once_and_alike(models: dict[str, Model]) -> None:
    reward = as_reward(models["decoder"])
    texts = [Example([3, 4], answer) for answer in ([[5, 6]], [[7]], [[5, 6]])]
    seen: list[tuple[int, int]] = []
    found = score_ids(reward, texts, batch_size=1, progress=lambda *count: seen.append(count))
    assert found[0] == found[2] != found[1]
    assert seen == [(1, 3), (3, 3)]
