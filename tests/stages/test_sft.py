"""The sft stage on models of two random layers, and the stages that start from what it wrote.

Seen to fail: with the adapter not merged; with `base` not passed on when the fine-tuned model lies elsewhere; with the
input `model` ignored by one of the stages; with a resumed run that starts its epoch again.
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from podium.config import STAGE_TABLE, PodiumConfig, SftConfig, load_config_data
from podium.data.batches import pad_left, pad_right
from podium.data.records import DemonstrationRecord
from podium.data.tokenizer import load_tokenizer
from podium.errors import UserError
from podium.evaluation.candidates import read_candidates
from podium.models import Model, family, load
from podium.models.text import Text
from podium.parallel.mesh import make_mesh
from podium.rlhf import sft_training
from podium.rlhf.demonstrations import encode
from podium.rlhf.sft_training import SftRun, train_sft
from podium.stages import sft
from podium.stages.io import StageIO
from podium.stages.manifest import content_digest
from podium.stages.runner import run_stage
from podium.training.metrics import read_metrics
from support import folders, tiny

WORDS = ("red", "blue", "a dog", "the sun", "stone", "good", "tea", "rain", "a cat", "moon", "green", "salt")
STEPS = 8


def rows() -> list[dict[str, str]]:
    return [{"prompt": f"say {word} {n}", "response": f"{word}, {word}!"} for n in range(4) for word in WORDS]


def write(path: Path, found: list[dict[str, str]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in found), encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module", autouse=True)
def one_device() -> Iterator[None]:
    """Eight devices that share two processors are slow, and tests/rlhf compares their results."""
    first = jax.devices()[:1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("jax.devices", lambda: first)
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a base model and what `prepare` made of demonstrations, preferences and prompts."""
    here = tmp_path_factory.mktemp("run")
    folders.write_folder(here / "base")
    pairs = [{"prompt": f"ask {word}", "chosen": f"{word}!", "rejected": f"no {word}"} for word in WORDS]
    write(here / "demonstrations.jsonl", rows())
    write(here / "pairs.jsonl", pairs)
    run_stage("prepare", config(here), StageIO.local(here))
    return here


def config(here: Path, **options: Any) -> PodiumConfig:
    adapters = {"lora": {"r": 2, "layers": 1}, "learning_rate": 0.01, "max_steps": 1}
    return load_config_data(
        {
            "seed": 3,
            "model": {"name_or_path": str(here / "base")},
            "data": {
                "demonstrations": str(here / "demonstrations.jsonl"),
                "preferences": str(here / "pairs.jsonl"),
                "eval_fraction": 0.25,
                "max_prompt_length": 40,
                "max_length": 64,
            },
            "sft": {
                "learning_rate": 0.02,
                "max_steps": STEPS,
                "per_device_batch_size": 8,
                "save_steps": 3,
                "logging_steps": 1,
            }
            | options.pop("sft", {}),
            "sample": {"max_new_tokens": 4, "batch_size": 8},
            "reward": adapters | {"per_device_batch_size": 8},
            "ppo": adapters | {"max_new_tokens": 4, "per_device_batch_size": 8, "num_ppo_epochs": 1},
            "export": {"verify": "never"},
        }
        | options,
        source="test",
    )


def io_of(run: Path, out: Path) -> StageIO:
    return StageIO.local(out, demonstrations=run / "demonstrations")


@pytest.fixture(scope="module")
def tuned(run: Path) -> tuple[Path, dict[str, float]]:
    """The folder of a fine-tuned model, and the metrics of its stage."""
    out = run / "tuned"
    result, _ = run_stage("sft", config(run), io_of(run, out))
    return out / "model", result.metrics


def test_held_out_perplexity_falls_and_is_reported(tuned: tuple[Path, dict[str, float]], run: Path) -> None:
    folder, metrics = tuned
    report = json.loads((folder / "report.json").read_text())
    assert metrics["perplexity_low"] < metrics["perplexity"] < metrics["perplexity_high"] < 50
    assert metrics["perplexity_base"] > 100
    assert report["perplexity"]["value"] == metrics["perplexity"]
    held_out = [json.loads(line) for line in (run / "demonstrations" / "eval.jsonl").read_text().splitlines()]
    # A token per byte, and the end.
    assert metrics["tokens"] == report["tokens"] == sum(len(row["response"]) + 1 for row in held_out)
    assert report["demonstrations"] == len(held_out) == report["perplexity"]["units"]
    rows = read_metrics(folder)
    assert any("perf/tokens_per_second_per_chip" in row for row in rows)
    losses = [row["loss"] for row in rows]
    assert len(losses) == STEPS and losses[-1] < losses[0]


def test_perplexity_is_that_of_the_texts(tuned: tuple[Path, dict[str, float]], run: Path) -> None:
    """In float64, of the model as it is loaded again."""
    folder, metrics = tuned
    model = load(folder)
    held_out = [json.loads(line) for line in (run / "demonstrations" / "eval.jsonl").read_text().splitlines()]
    prompts = [model.tokenizer.encode_prompt(row["prompt"]) for row in held_out]
    responses = [model.tokenizer.encode_response(row["response"]) for row in held_out]
    text = Text(*pad_left(prompts, 40, 258), *pad_right(responses, 24, 258))  # type: ignore[arg-type]  # NumPy arrays
    logits = np.asarray(jax.jit(lambda text: logits_of(model, text))(text), np.float64)
    logprobs = logits - np.log(np.exp(logits).sum(axis=2, keepdims=True))
    found = [logprobs[row, place, token] for row, ids in enumerate(responses) for place, token in enumerate(ids)]
    assert len(found) == metrics["tokens"]
    assert np.exp(-np.mean(found)) == pytest.approx(metrics["perplexity"], rel=1e-4)


def logits_of(model: Model, text: Text) -> jax.Array:
    return family.logits(model.config, model.params, family.response_states(model.config, model.params, text))


@pytest.fixture(scope="module")
def later(run: Path, tuned: tuple[Path, dict[str, float]]) -> dict[str, StageIO]:
    """The stages after sft, which start from its model; it is moved before evaluate and export."""
    first, moved = run / "first" / "model", run / "elsewhere" / "model"
    shutil.copytree(tuned[0], first)
    out = run / "later"
    made = {"prompts": run / "prompts", "preferences": run / "preferences"}

    def start(stage: str, *names: str, **more: Path) -> StageIO:
        io = StageIO.local(out / stage, **{name: made[name] for name in names}, **more)
        run_stage(stage, config(run), io)
        made.update(
            {name: out / stage / name for name in STAGE_TABLE[stage].outputs if name not in ("metrics", "model")}
        )
        return io

    found = {
        "sample": start("sample", "prompts", model=first),
        "reward": start("reward", "preferences", model=first),
        "ppo": start("ppo", "prompts", "reward_model", model=first),
    }
    moved.parent.mkdir()
    first.rename(moved)
    found["evaluate"] = start("evaluate", "policy", "candidates", "reward_model", model=moved)
    found["export"] = start("export", "policy", base=moved)
    return found


def test_every_later_stage_starts_from_the_fine_tuned_model(
    later: dict[str, StageIO], tuned: tuple[Path, dict[str, float]], run: Path
) -> None:
    digest = load(tuned[0]).base_digest
    assert digest != load(run / "base").base_digest
    (row, *_) = read_candidates(later["sample"].output("candidates"))
    assert (row.model, row.model_digest) == (f"{run / 'base'}, fine-tuned", digest)
    for stage, output in (("reward", "reward_model"), ("ppo", "policy")):
        assert json.loads((later[stage].output(output) / "podium_model.json").read_text())["base_digest"] == digest
        manifest = json.loads((later[stage].output(output) / "manifest.json").read_text())
        assert manifest["inputs"]["model"] == content_digest(tuned[0])
    results = json.loads((later["evaluate"].output("samples") / "results.json").read_text())
    assert results["policies"]["baseline"]["digest"] == digest
    # One step of PPO moves the policy little: the adapter stands on the fine-tuned model and not on the base.
    assert abs(results["kl"]["answer"]["value"]) < 1.0


def test_the_exported_model_is_said_to_be_fine_tuned_and_holds_its_weights(
    later: dict[str, StageIO], tuned: tuple[Path, dict[str, float]]
) -> None:
    folder = later["export"].output("model")
    card = (folder / "README.md").read_text()
    assert "base_model: base\n" in card
    assert "base fine-tuned on demonstrations, then tuned by PPO" in card
    first, exported = load_file(tuned[0] / "model.safetensors"), load_file(folder / "model.safetensors")
    untouched = "model.layers.0.mlp.up_proj.weight"
    np.testing.assert_array_equal(first[untouched], exported[untouched])


def test_candidates_of_the_model_before_are_no_baseline(later: dict[str, StageIO], run: Path, tmp_path: Path) -> None:
    run_stage("sample", config(run), StageIO.local(tmp_path / "sample", prompts=run / "prompts"))
    inputs = dict(later["evaluate"].inputs) | {"candidates": str(tmp_path / "sample" / "candidates")}
    with pytest.raises(UserError, match=r"candidates: of .*base, and the policy was tuned from another model"):
        run_stage("evaluate", config(run), StageIO.local(tmp_path / "evaluate", **inputs))


def test_an_adapter_is_no_model_to_start_from(later: dict[str, StageIO], run: Path, tmp_path: Path) -> None:
    io = StageIO.local(tmp_path, prompts=run / "prompts", model=later["ppo"].output("policy"))
    with pytest.raises(UserError, match=r"input model: .* is an adapter; name what podium sft or a merged"):
        run_stage("sample", config(run), io)


class Killed(BaseException):
    """Ends a stage as SIGKILL would: nothing of ours runs after it."""


def test_a_killed_run_ends_with_the_weights_of_one_that_was_not(
    tuned: tuple[Path, dict[str, float]], run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[int] = []
    layout = sft_training.to_arrays

    def to_arrays(*arguments: Any) -> Any:
        begun.append(len(begun))
        if len(begun) == 6:
            raise Killed
        return layout(*arguments)

    monkeypatch.setattr(sft_training, "to_arrays", to_arrays)
    with pytest.raises(Killed):
        run_stage("sft", config(run), io_of(run, tmp_path))
    assert not (tmp_path / "model" / "manifest.json").exists()
    run_stage("sft", config(run), io_of(run, tmp_path))
    # Five steps before the end, a checkpoint at three of them, and the rest after it.
    assert len(begun) == 6 + STEPS - 3
    whole = (tuned[0] / "model.safetensors").read_bytes()
    assert (tmp_path / "model" / "model.safetensors").read_bytes() == whole


def test_an_adapter_is_merged_into_the_weights_it_trained(run: Path, tmp_path: Path) -> None:
    settings = {"lora": {"r": 4, "layers": 1, "target_modules": ["q_proj"]}, "max_steps": 2, "learning_rate": 0.05}
    run_stage("sft", config(run, sft=settings), io_of(run, tmp_path))
    before, after = (load_file(folder / "model.safetensors") for folder in (run / "base", tmp_path / "model"))
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    assert changed == {"model.layers.1.self_attn.q_proj.weight"}
    model = load(tmp_path / "model")
    assert model.lora is None and model.metadata["fine_tuned_from"] == str(run / "base")


@pytest.mark.parametrize(("kind", "packing"), [("decoder", False), ("encoder-decoder", True)])
def test_a_network_learns_without_packing_and_an_encoder_decoder_with_it(
    kind: str, packing: bool, run: Path, tmp_path: Path
) -> None:
    network = tiny.CONFIGS[kind].replace(vocab_size=300)
    params, _ = family.init_params(network, jax.random.key(0))
    base = Model(config=network, params=params, tokenizer=load_tokenizer(run / "base"), base="tiny")
    ask = [{"role": "user", "content": "say it"}]
    records = [DemonstrationRecord(id=word, prompt=ask, response=f"{word}, {word}!") for word in WORDS]
    mesh = make_mesh()
    settings = SftConfig(max_steps=6, learning_rate=0.02, per_device_batch_size=8, packing=packing)
    held_out = encode(records[:3], base.tokenizer, 64)
    with jax.set_mesh(mesh):
        before = sft.perplexity(base, held_out, 8, "before").value
        model = train_sft(
            base,
            records,
            SftRun(
                config=settings,
                max_prompt_length=30,
                max_length=64,
                seed=0,
                mesh=mesh,
                folder=tmp_path,
                checkpoints=str(tmp_path / "checkpoints"),
                fingerprint="",
            ),
        )
        after = sft.perplexity(model, held_out, 8, "after").value
    assert before is not None and after is not None
    assert after < 0.2 * before


@pytest.mark.parametrize(
    ("options", "found", "message"),
    [
        ({}, [], r"demonstrations: train\.jsonl is empty; name files in data\.demonstrations and prepare again"),
        ({}, [{"prompt": "a", "response": "b" * 90}], r"demonstration d0: 1\d\d tokens .* data\.max_length is 64;"),
        (
            {"data": {"max_prompt_length": 40, "max_length": 200}},
            [{"prompt": "a", "response": "b" * 130}],
            r"demonstrations: up to 1\d\d tokens of prompt and response, the model reads 128; lower data\.max_length",
        ),
        ({"sft": None}, [], r"podium sft: the configuration has no section sft; sft: \{\} takes its defaults"),
    ],
)
def test_what_cannot_be_learned_is_said(
    run: Path, tmp_path: Path, options: dict[str, Any], found: list[dict[str, str]], message: str
) -> None:
    asked = [
        {"id": f"d{n}", "prompt": [{"role": "user", "content": row["prompt"]}], "response": row["response"]}
        for n, row in enumerate(found)
    ]
    (tmp_path / "demonstrations").mkdir()
    write(tmp_path / "demonstrations" / "train.jsonl", asked)  # type: ignore[arg-type]  # rows with messages
    write(tmp_path / "demonstrations" / "eval.jsonl", [])
    settings = config(run)
    settings = settings.model_copy(
        update={
            name: None if value is None else getattr(settings, name).model_copy(update=value)
            for name, value in options.items()
        }
    )
    with pytest.raises(UserError, match=message):
        run_stage("sft", settings, io_of(tmp_path, tmp_path / "out"))
    assert not (tmp_path / "out" / "model" / "manifest.json").exists()


def test_an_empty_output_folder_is_not_made_for_a_missing_section(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no section sft"):
        run_stage("sft", config(run).model_copy(update={"sft": None}), io_of(run, tmp_path / "out"))
    assert not (tmp_path / "out").exists()
