"""Reward: preferences and a model in, a reward model with its held-out report out.

Metrics: accuracy with accuracy_low and accuracy_high (its interval), accuracy_cut (on responses cut after
ppo.max_new_tokens), longer_wins (accuracy of the rule that the longer response wins), calibration_error, margin, pairs,
gain, bias; the report's other figures are in report.json.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from podium.config import PodiumConfig
from podium.data.records import PreferenceRecord, normalised_prompt, pairs, read_preferences
from podium.data.tokenizer import Tokenizer
from podium.evaluation import preference
from podium.models import Model, save
from podium.rlhf.comparisons import encode
from podium.rlhf.reward_training import RewardRun, train_reward
from podium.rlhf.scoring import encode_answers, score_shown
from podium.stages.base import base_model, reward_base, work_key
from podium.stages.io import Result, StageIO
from podium.stages.meshes import stage_mesh

CONFIDENCE = 0.95
# Points of accuracy that cutting the responses may cost before it is said.
CUT_COST = 0.05


def run(config: PodiumConfig, io: StageIO) -> Result:
    """Train on preferences/train.jsonl, judge on preferences/eval.jsonl, write the reward model."""
    folder = io.output("reward_model")
    preferences = io.input("preferences")
    train = read_preferences(preferences / "train.jsonl")
    held_out = read_preferences(preferences / "eval.jsonl")
    mesh, _ = stage_mesh(config, io, "reward")
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
            fingerprint=work_key("reward", config, io, policy, base),
            step_timeout=config.platform.step_timeout,
            profile=io.profile,
        ),
    )
    report = judge(model, policy.tokenizer, held_out, config)
    if report:
        _warn(report)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.json").write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    save(model, folder)
    metrics = _metrics(report) | {"gain": model.gain, "bias": model.bias, "train_lists": float(len(train))}
    return Result(metrics=metrics, metadata={"reward_model": {"base": model.base, **metrics}})


def judge(
    model: Model, writer: Tokenizer, held_out: Sequence[PreferenceRecord], config: PodiumConfig
) -> dict[str, Any]:
    """Report accuracy, calibration and margins on comparisons the model has not seen; {} where there is none.

    `cut` says how it judges the same responses cut after ppo.max_new_tokens of the policy's tokens, as PPO cuts its
    own: max_new_tokens; share (of the responses that are longer); accuracy (value, low, high, units). Pairs whose
    responses begin alike to the cut count half.
    """
    held_out = [record for record in held_out if any(pairs(record))]
    if not held_out:
        return {}
    comparisons = encode(held_out, model.tokenizer, config.data.max_length)
    texts = [text for comparison in comparisons for text in comparison.texts]
    limit = config.ppo.max_new_tokens
    prompts = [record.prompt for record in held_out for _ in record.responses]
    answers = [writer.encode_response(response) for record in held_out for response in record.responses]
    short = encode_answers(model, writer, prompts, [answer[:limit] for answer in answers])
    scores = score_shown(model, [*texts, *short], "reward: held-out responses, whole and cut")
    whole, cut = np.split(scores, [len(texts)])
    better, worse, groups = _pairs(held_out)
    lengths = np.array([len(text.responses[0]) for text in texts])
    report = preference.report(whole[better], whole[worse], lengths[better], lengths[worse], CONFIDENCE, groups=groups)
    report["cut"] = {
        "max_new_tokens": limit,
        "share": sum(len(answer) > limit for answer in answers) / len(answers),
        "accuracy": preference.accuracy(cut[better], cut[worse], CONFIDENCE, groups=groups)._asdict(),
    }
    return report


def _pairs(records: Sequence[PreferenceRecord]) -> tuple[list[int], list[int], list[str]]:
    """Places of the better and the worse response of each pair among all responses, and the pair's prompt."""
    starts = np.cumsum([0] + [len(record.responses) for record in records]).tolist()
    better, worse, groups = [], [], []
    for start, record in zip(starts, records, strict=False):
        for first, second in pairs(record):
            better.append(start + first)
            worse.append(start + second)
            groups.append(normalised_prompt(record.prompt))
    return better, worse, groups


def _warn(report: Mapping[str, Any]) -> None:
    """Say where the responses that PPO will write are too short for what the reward model has learnt."""
    whole, cut = report["accuracy"]["value"], report["cut"]["accuracy"]["value"]
    if whole - cut > CUT_COST:
        limit = report["cut"]["max_new_tokens"]
        print(
            f"Note: held-out accuracy is {whole:.0%} on whole responses and {cut:.0%} where they are cut after "
            f"ppo.max_new_tokens = {limit} tokens; raise it, or prefer pairs that differ early",
            file=sys.stderr,
        )


def _metrics(report: dict[str, Any]) -> dict[str, float]:
    if not report:
        return {}
    return {
        "pairs": float(report["pairs"]),
        "accuracy": report["accuracy"]["value"],
        "accuracy_low": report["accuracy"]["low"],
        "accuracy_high": report["accuracy"]["high"],
        "accuracy_cut": report["cut"]["accuracy"]["value"],
        "longer_wins": report["longer_wins"]["tokens"]["value"],
        "margin": report["margin"]["value"],
        "calibration_error": report["calibration"]["error"],
    }
