"""Evaluate: the tuned policy against the baseline's candidates, judged by the reward model.

The policy answers the prompts of the candidates under the settings written there, seed included: both sides draw the
same random numbers, so that what differs is the policy. A full policy's reference is the model the run starts from; an
adapter's is the model it stands on. The candidates must be the reference's.

Gates: the stage completes whether they pass or not, so that a failed run still has its report. `gates_passed` is 1 or 0
in the metrics; the stage `gates` decides what a 0 means.

Metrics: num_prompts; reward_baseline, reward_tuned, reward_gain with _low and _high; win_rate with _low and _high;
win_rate_equal_length, reward_gain_equal_length; best_of_2_gain with _low and _high, best_of_2_kl (a bound), where the
baseline has two answers to each prompt; kl with _low and _high, kl_per_token; length, finish_rate, perplexity,
common_opening, duplicates, prompt_copies, repetition and distinct_2, each with _baseline and _tuned; length_ratio;
reward_accuracy; gates_passed.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from podium.config import PodiumConfig, stage_config
from podium.errors import UserError
from podium.evaluation import comparison, report, results
from podium.evaluation.candidates import Candidates, Response, read_candidates
from podium.evaluation.logprobs import answer_logprobs
from podium.evaluation.samples import Sample, prompt_text
from podium.models import Model
from podium.rlhf.scoring import encode_answers, score_shown
from podium.stages.base import base_folder, base_model, load
from podium.stages.io import Result, StageIO
from podium.stages.manifest import versions
from podium.stages.meshes import stage_mesh
from podium.stages.provenance import run_of
from podium.stages.run_record import leave_with_run
from podium.stages.sample import answer, responses_of
from podium.training.metrics import METRICS_FILE, read_metrics
from podium.training.progress import Progress

REPORT_FILE = "report.json"
# In what rewards are given.
NORMALIZED = "standard deviations of untrained answers"
OWN_SCALE = "the reward model's own scale"


def run(config: PodiumConfig, io: StageIO) -> Result:
    """Answer, score, measure and write report, samples and metrics."""
    candidates = read_candidates(io.input("candidates"))
    data = _read_json(io.input("data_report") / REPORT_FILE) if "data_report" in io.inputs else None
    mesh, _ = stage_mesh(config, io, "evaluate")
    with jax.set_mesh(mesh):
        tuned = io.input("policy")
        policy = load(tuned, dtype=config.model.dtype, mesh=mesh, base=base_folder(config, io, tuned))
        reference = policy.replace(adapter=None, lora=None) if policy.lora else base_model(config, io, mesh)
        _check_baseline(candidates, policy, reference)
        answers = _answer(policy, candidates, config)
        judge = load(io.input("reward_model"), role="reward", dtype=config.model.dtype, mesh=mesh, shared=reference)
        rewards = _rewards(config, io, candidates, answers, policy, judge)
        measured, rows = _measure(config, candidates, answers, policy, reference, rewards)
    held_out = _read_json(io.input("reward_model") / REPORT_FILE)
    measured |= {"reward_unit": NORMALIZED if (judge.gain, judge.bias) != (1.0, 0.0) else OWN_SCALE}
    measured |= {"sampling": candidates[0].sampling.model_dump(), "policies": _policies(candidates, policy)}
    gates = config.evaluation.gates.model_dump(exclude={"on_failure"})
    result = results.conclude(measured, rows, reward_model=held_out or None, gates=gates)
    _write(config, io, result, rows, data)
    metrics = comparison.flatten(result) | {"gates_passed": float(result["gates_passed"])}
    if held_out:
        metrics["reward_accuracy"] = held_out["accuracy"]["value"]
    summary = result["summary"]
    metadata = {
        "report": {"verdict": summary["verdict"], "headline": summary["headline"]},
        "samples": {"rows": len(rows)},
    }
    return Result(metrics=metrics, metadata=metadata)


def _answer(policy: Model, candidates: Sequence[Candidates], config: PodiumConfig) -> list[list[Response]]:
    generations = len(candidates[0].responses)
    completions = answer(
        policy,
        [row.prompt for row in candidates],
        candidates[0].sampling,
        generations=generations,
        batch_size=config.sample.batch_size,
        label="evaluate: answer",
    )
    return responses_of(completions, generations)


def _rewards(
    config: PodiumConfig,
    io: StageIO,
    candidates: Sequence[Candidates],
    answers: list[list[Response]],
    policy: Model,
    model: Model,
) -> tuple[np.ndarray, np.ndarray]:
    """Score baseline and tuned answers, [prompts, generations] each, in one pass."""
    rows = [*(row.responses for row in candidates), *answers]
    prompts = [model.tokenizer.encode_prompt(row.prompt) for row in candidates] * 2
    repeated = [prompt for prompt, row in zip(prompts, rows, strict=True) for _ in row]
    texts = encode_answers(model, policy.tokenizer, repeated, [one.token_ids for row in rows for one in row])
    raw = score_shown(model, texts, "evaluate: score", batch_size=config.evaluation.batch_size)
    scores = model.gain * raw.astype(float) + model.bias
    if not np.isfinite(scores).all():
        raise UserError(f"{io.input('reward_model')}: gives rewards that are not finite; train the reward model again")
    baseline, tuned = scores.reshape(2, len(candidates), -1)
    return baseline, tuned


def _measure(
    config: PodiumConfig,
    candidates: Sequence[Candidates],
    answers: list[list[Response]],
    policy: Model,
    reference: Model,
    rewards: tuple[np.ndarray, np.ndarray],
) -> tuple[dict[str, Any], list[Sample]]:
    """Return the comparison and the rows of samples.jsonl."""
    before, after = [row.responses for row in candidates], answers
    # Greedy answers come from no distribution with a temperature of 0; they are judged under the one at 1.
    temperature = candidates[0].sampling.temperature or 1.0
    prompts = [policy.tokenizer.encode_prompt(row.prompt) for row in candidates]
    size = config.evaluation.batch_size
    (own,) = _logprobs(policy, prompts, after, (temperature,), size, "evaluate: policy")
    sampled, plain = _logprobs(
        reference, prompts + prompts, before + after, (temperature, 1.0), size, "evaluate: reference"
    )
    moved = comparison.Drift(own, sampled[len(before) :])
    sides = {
        "baseline": _side(before, rewards[0], plain[: len(before)]),
        "tuned": _side(after, rewards[1], plain[len(before) :]),
    }
    asked = [prompt_text(row.prompt) for row in candidates]
    measured = comparison.compare(asked, sides["baseline"], sides["tuned"], moved, config.evaluation.confidence)
    return measured, _rows(candidates, after, rewards, moved.policy_logprobs - moved.reference_logprobs)


def _logprobs(
    model: Model,
    prompts: Sequence[Sequence[int]],
    rows: list[list[Response]],
    temperatures: tuple[float, ...],
    batch_size: int,
    label: str,
) -> np.ndarray:
    """Log-probabilities of the rows' answers, [temperatures, prompts, generations]."""
    repeated = [prompt for prompt, row in zip(prompts, rows, strict=True) for _ in row]
    ids = [one.token_ids for row in rows for one in row]
    with Progress(len(ids), label, unit="answer") as progress:
        sums = answer_logprobs(
            model,
            repeated,
            ids,
            temperatures=temperatures,
            batch_size=batch_size,
            progress=lambda done, _: progress.update(done),
        )
    return sums.reshape(len(temperatures), len(rows), -1)


def _side(rows: list[list[Response]], rewards: np.ndarray, reference_logprobs: np.ndarray) -> comparison.Answers:
    return comparison.Answers(
        texts=[[one.text for one in row] for row in rows],
        rewards=rewards,
        tokens=np.array([[float(one.num_tokens) for one in row] for row in rows]),
        finished=np.array([[float(one.finish_reason == "stop") for one in row] for row in rows]),
        reference_logprobs=reference_logprobs,
    )


def _rows(
    candidates: Sequence[Candidates], answers: list[list[Response]], rewards: tuple[np.ndarray, np.ndarray], kl: Any
) -> list[Sample]:
    return [
        {
            "id": row.id,
            "generation": number,
            "prompt": row.prompt,
            "baseline": before.text,
            "tuned": after.text,
            "reward_baseline": float(rewards[0][place, number]),
            "reward_tuned": float(rewards[1][place, number]),
            "tokens_baseline": before.num_tokens,
            "tokens_tuned": after.num_tokens,
            "finished_baseline": before.finish_reason == "stop",
            "finished_tuned": after.finish_reason == "stop",
            "kl": float(kl[place, number]),
        }
        for place, row in enumerate(candidates)
        for number, (before, after) in enumerate(zip(row.responses, answers[place], strict=True))
    ]


def _write(config: PodiumConfig, io: StageIO, result: dict[str, Any], rows: list[Sample], data: Any) -> None:
    policy = io.input("policy")
    page = report.Page(
        results=result,
        rows=rows,
        sample_rows=config.evaluation.sample_rows,
        curves=read_metrics(policy) if (policy / METRICS_FILE).is_file() else [],
        config=stage_config(config, "evaluate"),
        versions=versions(),
        inputs=io.input_digests(),
        data=data,
        run=run_of(io),
    )
    io.output("report").write_text(report.html(page), encoding="utf-8")
    results.write(io.output("samples"), result, rows, report.markdown(result))
    leave_with_run("evaluate", io.output("samples"), io.output("report"))


def _policies(candidates: Sequence[Candidates], policy: Model) -> dict[str, Any]:
    return {
        "baseline": {"model": candidates[0].model, "digest": candidates[0].model_digest},
        "tuned": {"base": policy.base, "base_digest": policy.base_digest, "lora": policy.lora is not None},
    }


def _check_baseline(candidates: Sequence[Candidates], policy: Model, reference: Model) -> None:
    """Refuse candidates of another tokenizer, whose token ids would mean other texts, and those of another model."""
    if max(max(one.token_ids) for row in candidates for one in row.responses) >= policy.config.vocab_size:
        raise UserError(
            f"candidates: of {candidates[0].model}, whose tokens the policy does not have; "
            "sample them from the model that the policy was tuned from"
        )
    digest = candidates[0].model_digest
    if digest and digest != reference.base_digest:
        raise UserError(
            f"candidates: of {candidates[0].model}, and the policy was tuned from another model ({reference.base}); "
            "run podium sample with the --input model that podium ppo had"
        )


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise UserError(f"{path}: is not JSON ({error}); run the stage that writes it again") from None
