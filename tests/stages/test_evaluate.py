"""The evaluate stage on a small trained model, with policies and judges whose figures are known or recomputed."""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from podium.config import PodiumConfig
from podium.data.records import PromptRecord, write_jsonl
from podium.errors import UserError
from podium.evaluation import preference
from podium.evaluation.logprobs import answer_logprobs
from podium.generation import generate
from podium.models import LoraSpec, Model, family, load, save, transformer
from podium.models.heads import init_head
from podium.stages import evaluate, sample
from podium.stages.io import Result, StageIO
from podium.stages.runner import run_stage
from support.evaluation_run import data_report

TEXTS = ["Once upon a time", "The dog ran", "Lily had a red ball and", "One day Tom"]
LORA = LoraSpec(r=2, alpha=8)
NEW_TOKENS = 8


@pytest.fixture(scope="module")
def base(request: pytest.FixtureRequest) -> Model:
    return load(request.getfixturevalue("data_dir") / "model-stories260k")


def config(base: Model, *, gates: dict[str, float] | None = None) -> PodiumConfig:
    settings = {"max_new_tokens": NEW_TOKENS, "num_generations": 2, "temperature": 0.8, "batch_size": 8}
    return PodiumConfig.model_validate(
        {
            "seed": 5,
            "model": {"name_or_path": base.base},
            "sample": settings,
            "evaluation": {"batch_size": 8, "sample_rows": 6, "gates": gates or {}},
        }
    )


def tuned(base: Model, noise: float) -> Model:
    """An adapter that changes nothing at noise 0 and everything at 1."""
    adapter = family.init_adapter(base.config, LORA, jax.random.key(0))
    moved = jax.tree.map(lambda leaf: leaf + noise * 0.3 * jax.random.normal(jax.random.key(1), leaf.shape), adapter)
    return base.replace(lora=LORA, adapter=moved if noise else adapter)


@pytest.fixture(scope="module")
def inputs(base: Model, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Baseline candidates, two policies and a reward model with its report, as the earlier stages leave them."""
    folder = tmp_path_factory.mktemp("inputs")
    rows = [PromptRecord(id=f"p{n}", prompt=[{"role": "user", "content": text}]) for n, text in enumerate(TEXTS)]
    (folder / "prompts").mkdir()
    write_jsonl(folder / "prompts" / "eval.jsonl", rows)
    sample.run(config(base), StageIO.local(folder, prompts=folder / "prompts"))
    save(tuned(base, 0.0), folder / "still")
    save(tuned(base, 1.0), folder / "moved")
    with (folder / "moved" / "metrics.jsonl").open("w") as file:
        file.writelines(json.dumps({"step": n, "time": float(n), "objective/kl": 0.1 * n}) + "\n" for n in range(1, 4))
    judge = base.replace(role="reward", head=init_head(base.config, jax.random.key(7)), gain=2.0, bias=-1.0)
    save(judge, folder / "reward_model")
    held_out = preference.report([1.0, 2.0, 0.5], [0.0, 1.0, 1.0], [3, 4, 5], [4, 3, 4], 0.95)
    (folder / "reward_model" / "report.json").write_text(json.dumps(held_out))
    return {name: folder / name for name in ("candidates", "still", "moved", "reward_model", "prompts")}


def evaluate_policy(
    inputs: dict[str, Path], config: PodiumConfig, out: Path, policy: str = "moved", **more: Path
) -> tuple[Result, dict[str, Any], str, list[dict[str, Any]]]:
    io = StageIO.local(
        out, policy=inputs[policy], candidates=inputs["candidates"], reward_model=inputs["reward_model"], **more
    )
    result = evaluate.run(config, io)
    found = json.loads((out / "samples" / "results.json").read_text())
    rows = [json.loads(line) for line in (out / "samples" / "samples.jsonl").read_text().splitlines()]
    return result, found, (out / "report").read_text(), rows


@pytest.fixture(scope="module")
def moved(
    base: Model, inputs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Result, dict[str, Any], str, list[dict[str, Any]]]:
    return evaluate_policy(inputs, config(base), tmp_path_factory.mktemp("moved"))


def test_an_untouched_policy_ties_with_itself(base: Model, inputs: dict[str, Path], tmp_path: Path) -> None:
    """Same prompts, same seed, same random numbers: any difference would be a fault of the measurement."""
    result, found, _, rows = evaluate_policy(inputs, config(base), tmp_path, "still")
    assert all(row["baseline"] == row["tuned"] for row in rows)
    assert all(row["reward_baseline"] == row["reward_tuned"] for row in rows)
    assert result.metrics["win_rate"] == 0.5 and result.metrics["reward_gain"] == 0.0
    assert abs(result.metrics["kl"]) < 1e-5
    assert found["win_rate"]["ties"] == len(TEXTS)
    assert found["summary"]["verdict"] == "amber"


def test_rewards_and_kl_equal_a_slow_recomputation(
    base: Model, moved: tuple[Result, dict[str, Any], str, list[dict[str, Any]]]
) -> None:
    """One row without padding or batches: reward at the end of the text, KL summed over the answer's tokens.

    The row was cut off: for the reward it counts as ended where it stops.
    """
    _, found, _, rows = moved
    row = next(row for row in rows if not row["finished_tuned"])
    policy, head = tuned(base, 1.0), init_head(base.config, jax.random.key(7))
    prompt = base.tokenizer.encode_prompt(row["prompt"])
    prompts = [base.tokenizer.encode_prompt(each["prompt"]) for each in rows]
    again = generate(policy, prompts, batch_size=3, **found["sampling"])
    ids = again.ids[rows.index(row)]
    tokens = np.array([prompt + ids], np.int32)

    def logprob(adapter: Any, lora: LoraSpec | None) -> float:
        hidden = transformer.forward(base.config, base.params, tokens, tokens >= 0, adapter=adapter, lora=lora)
        logits = np.asarray(family.logits(base.config, base.params, hidden), np.float64)[0] / 0.8
        chosen = [logits[len(prompt) - 1 + n] for n in range(len(ids))]
        return sum(row[token] - np.logaddexp.reduce(row) for row, token in zip(chosen, ids, strict=True))

    assert base.tokenizer.decode(ids) == row["tuned"]
    assert row["kl"] == pytest.approx(logprob(policy.adapter, LORA) - logprob(None, None), abs=1e-3)
    assert abs(row["kl"]) > 0.01
    (plain,) = answer_logprobs(base, prompts, again.ids, temperatures=(1.0,), batch_size=8)
    tokens_in_all = sum(row["tokens_tuned"] for row in rows)
    assert found["perplexity"]["tuned"]["value"] == pytest.approx(np.exp(-plain.sum() / tokens_in_all), rel=1e-4)
    ended = np.array([prompt + base.tokenizer.encode_response(row["tuned"])], np.int32)
    assert ended[0, -1] in base.tokenizer.eos_ids and ids[-1] not in base.tokenizer.eos_ids
    hidden = np.asarray(transformer.forward(base.config, base.params, ended, ended >= 0), np.float64)[0, -1]
    raw = hidden @ np.asarray(head["kernel"], np.float64) + float(head["bias"])
    assert row["reward_tuned"] == pytest.approx(2.0 * raw - 1.0, abs=1e-3)


def test_outputs_agree_with_each_other(moved: tuple[Result, dict[str, Any], str, list[dict[str, Any]]]) -> None:
    result, found, page, rows = moved
    assert len(rows) == 2 * len(TEXTS) and {row["id"] for row in rows} == {"p0", "p1", "p2", "p3"}
    gain = np.mean([row["reward_tuned"] - row["reward_baseline"] for row in rows])
    assert result.metrics["reward_gain"] == found["reward"]["gain"]["value"] == pytest.approx(gain)
    assert result.metrics["kl"] == pytest.approx(np.mean([row["kl"] for row in rows]))
    assert found["reward"]["gain"]["units"] == len(TEXTS)
    assert found["length"]["tuned"]["value"] == pytest.approx(np.mean([row["tokens_tuned"] for row in rows]))
    best = np.mean(
        [max(row["reward_baseline"] for row in rows if row["id"] == name) for name in {r["id"] for r in rows}]
    )
    base = np.mean([row["reward_baseline"] for row in rows])
    assert result.metrics["best_of_2_gain"] == pytest.approx(best - base)
    assert result.metrics["best_of_2_kl"] == pytest.approx(np.log(2) - 0.5)
    assert found["reward_unit"] == evaluate.NORMALIZED
    assert result.metrics["reward_accuracy"] == pytest.approx(2 / 3)
    assert result.metadata["report"]["headline"] == found["summary"]["headline"]
    assert found["sampling"] == {"max_new_tokens": NEW_TOKENS, "temperature": 0.8, "top_k": 0, "top_p": 1.0, "seed": 5}
    assert "KL from the reference" in page, "the policy's metrics.jsonl is drawn"


def test_a_failed_gate_is_reported_and_the_stage_still_completes(
    base: Model, inputs: dict[str, Path], tmp_path: Path
) -> None:
    settings = config(base, gates={"max_kl": 0.001, "max_length_ratio": 50.0})
    result, found, page, _ = evaluate_policy(inputs, settings, tmp_path)
    assert result.metrics["gates_passed"] == 0.0 and not found["gates_passed"]
    assert {gate["name"]: gate["passed"] for gate in found["gates"]} == {"max_kl": False, "max_length_ratio": True}
    assert found["summary"]["verdict"] == "red"
    assert "Gate failed: KL per answer in nats" in page


def test_the_same_inputs_give_the_same_bytes_and_a_manifest(
    base: Model,
    inputs: dict[str, Path],
    tmp_path: Path,
    moved: tuple[Result, dict[str, Any], str, list[dict[str, Any]]],
) -> None:
    io = StageIO.local(
        tmp_path, policy=inputs["moved"], candidates=inputs["candidates"], reward_model=inputs["reward_model"]
    )
    result, skipped = run_stage("evaluate", config(base), io)
    assert not skipped and result.metrics == moved[0].metrics
    assert (tmp_path / "report").read_text() == moved[2]
    assert run_stage("evaluate", config(base), io)[1], "complete outputs are not made again"


def test_a_full_policy_is_measured_against_the_configured_model(
    base: Model, inputs: dict[str, Path], tmp_path: Path
) -> None:
    params = jax.tree.map(lambda leaf: leaf, base.params)
    params["final_norm"] = {"scale": base.params["final_norm"]["scale"] * 1.3}
    save(base.replace(params=params), tmp_path / "full")
    result, found, _, _ = evaluate_policy(inputs | {"full": tmp_path / "full"}, config(base), tmp_path / "out", "full")
    assert result.metrics["kl"] > 0.01
    assert found["policies"]["tuned"]["lora"] is False


def test_data_section_comes_from_an_optional_input(base: Model, inputs: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "report.json").write_text(json.dumps(data_report()))
    _, _, page, _ = evaluate_policy(inputs, config(base), tmp_path / "out", data_report=tmp_path / "data")
    assert "Pairs the longer answer wins" in page and "43.0 %" in page


def test_what_cannot_be_compared_is_refused_before_anything_is_written(
    base: Model, inputs: dict[str, Path], tmp_path: Path
) -> None:
    broken = tmp_path / "candidates"
    broken.mkdir()
    lines = (inputs["candidates"] / "candidates.jsonl").read_text().splitlines()
    row = json.loads(lines[0])
    row["responses"][0]["token_ids"] = [10_000]
    (broken / "candidates.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(UserError, match="whose tokens the policy does not have"):
        evaluate_policy(inputs | {"candidates": broken}, config(base), tmp_path / "out")
    judge = base.replace(
        role="reward", head={"kernel": np.full(base.config.embed, 3e38, np.float32), "bias": np.zeros((), np.float32)}
    )
    save(judge, tmp_path / "judge")
    with pytest.raises(UserError, match="not finite"):
        evaluate_policy(inputs | {"reward_model": tmp_path / "judge"}, config(base), tmp_path / "out")
    assert not (tmp_path / "out" / "report").exists() and not (tmp_path / "out" / "samples").exists()
