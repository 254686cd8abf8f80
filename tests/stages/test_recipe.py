"""The whole pipeline on a model trained from scratch, the same recipe for a decoder and an encoder-decoder.

Fine-tuning on the project's own demonstrations teaches a random model to copy its prompt. Preferences then favour the
letters a to d; the gold reward, their share among the letters of an answer, is known, so that what PPO gained can be
measured without the reward model.
"""

import itertools
import json
import random
from pathlib import Path

import jax
import pytest

from podium.config import STAGE_TABLE, PodiumConfig, load_config_data
from podium.stages.io import StageIO
from podium.stages.runner import run_stage
from support import folders

LETTERS = "abcdefgh"
GOOD = set("abcd")


def gold(answer: str) -> float:
    """Share of good letters, 0 where there is none."""
    letters = [letter for letter in answer if letter.isalpha()]
    return sum(letter in GOOD for letter in letters) / len(letters) if letters else 0.0


def words() -> list[str]:
    found = ["".join(letters) for letters in itertools.product(LETTERS, repeat=3)]
    random.Random(0).shuffle(found)
    return found


def write_data(here: Path) -> None:
    rng, names = random.Random(1), words()
    demonstrations = [{"prompt": word, "response": word} for word in names[:384]]
    pairs = []
    for word in names[:300]:
        one, other = ("".join(rng.choices(LETTERS, k=3)) for _ in range(2))
        if gold(one) != gold(other):
            better, worse = sorted((one, other), key=gold, reverse=True)
            pairs.append({"prompt": word, "chosen": better, "rejected": worse})
    prompts = [{"prompt": word} for word in names]
    for name, rows in (("demonstrations", demonstrations), ("pairs", pairs), ("prompts", prompts)):
        (here / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_model(kind: str, folder: Path) -> None:
    if kind == "decoder":
        folders.write_folder(folder, hidden_size=64, intermediate_size=128)
    else:
        folders.write_t5_folder(folder, d_model=64, d_kv=16, d_ff=128, num_decoder_layers=2)


def config(here: Path) -> PodiumConfig:
    return load_config_data(
        {
            "seed": 2,
            "model": {"name_or_path": str(here / "base")},
            "data": {
                "demonstrations": str(here / "demonstrations.jsonl"),
                "preferences": str(here / "pairs.jsonl"),
                "prompts": str(here / "prompts.jsonl"),
                "eval_fraction": 0.125,
                "max_prompt_length": 24,
                "max_length": 32,
            },
            "sft": {
                "learning_rate": 3e-3,
                "max_steps": 100,
                "packing": False,
                "per_device_batch_size": 64,
            },
            "reward": {"learning_rate": 2e-3, "max_steps": 40, "per_device_batch_size": 32, "lora": {"r": 8}},
            "sample": {"max_new_tokens": 5, "batch_size": 64},
            "ppo": {
                "learning_rate": 5e-3,
                "max_steps": 60,
                "per_device_batch_size": 64,
                "num_ppo_epochs": 1,
                "kl_coef": 0.02,
                "max_new_tokens": 5,
                "missing_eos_penalty": 1.0,
                "missing_eos": "subtract",
                "lora": {"r": 8},
            },
            "evaluation": {"batch_size": 64},
        },
        source="test",
    )


def run(kind: str, here: Path) -> dict[str, dict[str, float]]:
    """Every stage in its order; returns the metrics of each."""
    write_data(here)
    write_model(kind, here / "base")
    metrics: dict[str, dict[str, float]] = {}
    made: dict[str, Path] = {}
    for stage in ("prepare", "sft", "reward", "sample", "ppo", "evaluate", "export"):
        spec = STAGE_TABLE[stage]
        inputs = {name: made[name] for name in (*spec.inputs, *spec.optional) if name in made}
        result, _ = run_stage(stage, config(here), StageIO.local(here / stage, **inputs))
        metrics[stage] = result.metrics
        made |= {name: here / stage / name for name in spec.outputs if stage != "export"}
    return metrics


def golds(here: Path) -> list[float]:
    """Mean gold reward of the answers to held-out prompts, before and after PPO."""
    lines = (here / "evaluate" / "samples" / "samples.jsonl").read_text("utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    return [sum(gold(row[side]) for row in rows) / len(rows) for side in ("baseline", "tuned")]


@pytest.mark.parametrize("kind", ["decoder", "encoder-decoder"])
def test_ppo_raises_the_gold_reward_of_a_model_trained_from_scratch(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both kinds pass the same bounds: what they gain is equal within the noise of 51 prompts."""
    # One device: eight that share two processors are slow, and other tests compare their results.
    first = jax.devices()[:1]
    monkeypatch.setattr("jax.devices", lambda: first)
    metrics = run(kind, tmp_path)
    before, after = golds(tmp_path)
    assert metrics["sft"]["perplexity"] < 4 < metrics["sft"]["perplexity_base"]
    assert metrics["reward"]["accuracy_low"] > 0.6 and metrics["reward"]["longer_wins"] == 0.5
    assert 0.35 < before < 0.65, "copies favour no letter"
    assert after > before + 0.3
    assert metrics["evaluate"]["reward_gain_low"] > 0 and 0 < metrics["evaluate"]["kl"] < 20
    assert metrics["export"]["verify/max_difference"] < 1e-3
