"""The programs of sft and reward training made from configurations alone are those that a run compiles."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import pytest

from podium.config import RewardConfig, SftConfig
from podium.data.records import DemonstrationRecord, PreferenceRecord
from podium.models import Model
from podium.models.family import init_params
from podium.parallel import placement
from podium.parallel.mesh import make_mesh
from podium.rlhf import reward_training, sft_training
from podium.training.trainer import AbstractStep, jit_step
from support import tiny

PROMPT, LENGTH, ROWS = 9, 24, 8
SHAPES = {
    "all weights": {},
    "adapters": {"lora": {"r": 2}},
    "micro-batches": {"lora": {"r": 2}, "global_batch_size": 16},
}
# Every text is as long as it may be.
TOKENIZER = SimpleNamespace(
    encode_prompt=lambda _: [5] * PROMPT,
    encode_response=lambda _: [6] * (LENGTH - PROMPT),
    pad_id=tiny.PAD,
)
PROMPT_MESSAGES = [{"role": "user", "content": "a"}]


class Fitted(Exception):
    """What a run was about to compile."""


def described(arrays: Any) -> list[tuple[Any, ...]]:
    leaves = jax.tree_util.tree_leaves_with_path(arrays)
    return [(jax.tree_util.keystr(path), x.shape, x.dtype, x.sharding) for path, x in leaves]


def captured(monkeypatch: pytest.MonkeyPatch, module: Any) -> list[Any]:
    """Let a run stop where it would start its loop, and keep its step and arrays."""
    kept: list[Any] = []

    def fit(step: Any, state: Any, frozen: Any, batches: Any, *_: Any, **__: Any) -> None:
        kept.extend((step, state, frozen, batches(0)))
        raise Fitted

    monkeypatch.setattr(module, "fit", fit)
    return kept


def compare(planned: AbstractStep, kept: list[Any], mesh: Any) -> None:
    step, *arrays = kept
    assert described(planned.arguments) == described(arrays)
    with placement.on(mesh):
        real = jit_step(step, arrays[0]).lower(*arrays)
    assert planned.lower().as_text() == real.as_text()


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_reward(name: str, dtype: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    mesh = make_mesh(data=2, fsdp=2, tensor=2)
    config = RewardConfig(per_device_batch_size=2, max_steps=3, normalize=False, **SHAPES[name])
    network = tiny.CONFIG.replace(dtype=dtype)
    model = Model(config=network, params=init_params(network, jax.random.key(0))[0], tokenizer=TOKENIZER)
    records = [
        PreferenceRecord(id=str(place), prompt=PROMPT_MESSAGES, responses=["b", "c"], ranks=[1, 2])
        for place in range(4 * ROWS)
    ]
    kept = captured(monkeypatch, reward_training)
    run = reward_training.RewardRun(
        config=config, seed=0, mesh=mesh, folder=tmp_path, checkpoints=str(tmp_path), fingerprint="", max_length=LENGTH
    )
    with pytest.raises(Fitted):
        reward_training.train_reward(model, model, records, run)
    compare(reward_training.abstract_reward_step(network, config, mesh, prompt=PROMPT, length=LENGTH), kept, mesh)


@pytest.mark.parametrize("name", SHAPES)
def test_sft(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    mesh = make_mesh(data=2, fsdp=2, tensor=2)
    config = SftConfig(per_device_batch_size=2, max_steps=3, **SHAPES[name])
    model = Model(config=tiny.CONFIG, params=init_params(tiny.CONFIG, jax.random.key(0))[0], tokenizer=TOKENIZER)
    records = [DemonstrationRecord(id=str(place), prompt=PROMPT_MESSAGES, response="b") for place in range(4 * ROWS)]
    kept = captured(monkeypatch, sft_training)
    run = sft_training.SftRun(
        config=config,
        seed=0,
        mesh=mesh,
        folder=tmp_path,
        checkpoints=str(tmp_path),
        fingerprint="",
        max_prompt_length=PROMPT,
        max_length=LENGTH,
    )
    with pytest.raises(Fitted):
        sft_training.train_sft(model, records, run)
    compare(sft_training.abstract_sft_step(tiny.CONFIG, config, mesh, prompt=PROMPT, length=LENGTH), kept, mesh)
