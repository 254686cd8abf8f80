"""Reward: preferences and a model in, a reward model with its held-out report out.

Metrics: accuracy with accuracy_low and accuracy_high (its interval), longer_wins (accuracy of the rule that the longer
response wins), calibration_error, margin, pairs, gain, bias; the report's other figures are in report.json.
"""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from podium.config import PodiumConfig, deciding, stage_config
from podium.data.records import PreferenceRecord, normalised_prompt, pairs, read_preferences
from podium.evaluation import preference
from podium.models import Model, save
from podium.parallel.mesh import make_mesh
from podium.rlhf.comparisons import encode
from podium.rlhf.reward_training import RewardRun, train_reward
from podium.rlhf.scoring import score_ids
from podium.stages.base import base_model, reward_base
from podium.stages.io import Result, StageIO
from podium.training.loop import fingerprint


def run(config: PodiumConfig, io: StageIO) -> Result:
    """Train on preferences/train.jsonl, judge on preferences/eval.jsonl, write the reward model."""
    folder = io.output("reward_model")
    preferences = io.input("preferences")
    train = read_preferences(preferences / "train.jsonl")
    held_out = read_preferences(preferences / "eval.jsonl")
    mesh = make_mesh(**config.platform.mesh.model_dump())
    policy = base_model(config, io, mesh)
    base = reward_base(config, policy, mesh)
    model = train_reward(
        base,
        policy,
        train,
        RewardRun(
            config=config.reward,
            max_length=config.data.max_length,
            seed=config.seed,
            mesh=mesh,
            folder=folder,
            checkpoints=f"{io.work('reward_model')}/checkpoints",
            fingerprint=fingerprint(deciding(stage_config(config, "reward")), io.input_digests(), base.base_digest),
        ),
    )
    report = judge(model, held_out, config.data.max_length)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.json").write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    save(model, folder)
    metrics = _metrics(report) | {"gain": model.gain, "bias": model.bias, "train_lists": float(len(train))}
    return Result(metrics=metrics, metadata={"reward_model": {"base": model.base, **metrics}})


def judge(model: Model, held_out: Sequence[PreferenceRecord], max_length: int) -> dict[str, Any]:
    """Report accuracy, calibration and margins on comparisons the model has not seen; {} where there is none."""
    held_out = [record for record in held_out if any(pairs(record))]
    if not held_out:
        return {}
    comparisons = encode(held_out, model.tokenizer, max_length)
    scores = score_ids(model, [text for comparison in comparisons for text in comparison.texts])
    starts = np.cumsum([0] + [len(comparison.candidates) for comparison in comparisons])
    better, worse, groups = [], [], []
    for start, record in zip(starts, held_out, strict=False):
        for first, second in pairs(record):
            better.append(start + first)
            worse.append(start + second)
            groups.append(normalised_prompt(record.prompt))
    lengths = np.array([len(candidate) for comparison in comparisons for candidate in comparison.candidates])
    return preference.report(scores[better], scores[worse], lengths[better], lengths[worse], 0.95, groups=groups)


def _metrics(report: dict[str, Any]) -> dict[str, float]:
    if not report:
        return {}
    return {
        "pairs": float(report["pairs"]),
        "accuracy": report["accuracy"]["value"],
        "accuracy_low": report["accuracy"]["low"],
        "accuracy_high": report["accuracy"]["high"],
        "longer_wins": report["longer_wins"]["tokens"]["value"],
        "margin": report["margin"]["value"],
        "calibration_error": report["calibration"]["error"],
    }
