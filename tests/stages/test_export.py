"""The export stage: a policy folder in, a folder with a model card out, compared with transformers.

Seen to fail: with the adapter left out of the merge; with the chat template dropped; with the check taken out.
"""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import yaml

from podium.config import PodiumConfig, load_config_data
from podium.errors import UserError
from podium.evaluation import report, results
from podium.models import LoraSpec, load, save
from podium.models.family import abstract_params
from podium.stages import export
from podium.stages.io import StageIO, read_manifest, write_manifest
from podium.stages.runner import run_stage
from support.evaluation_run import page
from support.folders import write_folder, write_t5_folder
from support.gates import HEADLINE, samples
from support.packages import demand


def config(**options: Any) -> PodiumConfig:
    return load_config_data({"model": {"name_or_path": "some/model"}, "export": options}, source="test")


@pytest.fixture
def torch() -> None:
    demand("torch")
    demand("peft")


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    """Return the folder of a policy with an adapter that was trained far from its base."""
    model = load(write_folder(tmp_path / "base-of-somebody"))
    lora = LoraSpec(3, 6.0)
    rng = np.random.default_rng(0)
    shapes = abstract_params(model.config, lora)[1]
    adapter = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0, 0.2, leaf.shape), jnp.float32), shapes)
    folder = save(model.replace(lora=lora, adapter=adapter), tmp_path / "policy")
    settings = {"seed": 7, "ppo": {"kl_coef": 0.05}}
    metrics = {"objective/kl": 1.2345, "objective/scores": 0.5}
    write_manifest(folder, stage="ppo", config=settings, inputs={"prompts": "ab" * 32}, metrics=metrics)
    return folder


def card_of(folder: Path) -> tuple[dict[str, Any], str]:
    _, front, text = (folder / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    return yaml.safe_load(front), text


@pytest.mark.usefixtures("torch")
@pytest.mark.parametrize("format", ["merged", "adapter"])
def test_writes_a_checked_folder_and_its_card(format: str, policy: Path, tmp_path: Path) -> None:
    io = StageIO.local(tmp_path / "out", policy=policy)
    result, skipped = run_stage("export", config(format=format, verify="always"), io)
    folder = tmp_path / "out" / "model"
    assert not skipped and (folder / "manifest.json").is_file()
    assert result.metrics["verify/max_difference"] < 1e-4
    assert result.metrics["verify/kl"] < 1e-8 and result.metrics["verify/same_choice"] == 1
    weights = "adapter_model.safetensors" if format == "adapter" else "model.safetensors"
    assert (folder / weights).is_file()

    front, text = card_of(folder)
    assert front["base_model"] == "base-of-somebody"
    assert front["library_name"] == ("peft" if format == "adapter" else "transformers")
    assert "| KL from the starting model, nats per answer | 1.23 |" in text
    assert "exported without an evaluation" in text
    assert "kl_coef: 0.05" in text and "r=3, alpha=6" in text and "abab" in text
    assert str(tmp_path) not in text
    assert run_stage("export", config(format=format, verify="always"), io)[1], "a second run has nothing to do"


def test_the_card_carries_the_verdict_of_the_evaluation(policy: Path, tmp_path: Path) -> None:
    """Headline, every reason, gates and figures; and nobody reads raw names of metrics there."""
    made = page(40, generations=2)
    failed = {**made.results, "gates_passed": False}
    results.write(tmp_path / "samples", failed, made.rows, report.markdown(failed))
    io = StageIO.local(tmp_path / "out", policy=policy, samples=tmp_path / "samples")
    result = export.run(config(verify="never"), io)
    text = card_of(tmp_path / "out" / "model")[1]
    assert failed["summary"]["headline"] in text and "failed the gates of its run" in text
    assert all(f"- **{one['level']}** {one['text']}" in text for one in failed["summary"]["reasons"])
    assert "| Mean reward |" in text and "| Most common opening |" in text and "objective/" not in text
    assert result.metadata["model"]["gates_passed"] is False
    (tmp_path / "samples" / "results.json").unlink()
    with pytest.raises(UserError, match="name the samples that `podium evaluate` wrote"):
        export.run(config(verify="never"), io)


@pytest.mark.usefixtures("torch")
@pytest.mark.parametrize(("dtype", "least", "most"), [("bfloat16", 1e-3, 0.5), ("float16", 1e-4, 0.05)])
def test_half_precision_is_near_enough(dtype: str, least: float, most: float, policy: Path, tmp_path: Path) -> None:
    result = export.run(config(dtype=dtype), StageIO.local(tmp_path / "out", policy=policy))
    assert least < result.metrics["verify/max_difference"] < most
    assert json.loads((tmp_path / "out" / "model" / "config.json").read_text())["torch_dtype"] == dtype


@pytest.mark.usefixtures("torch")
def test_another_model_is_noticed(policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = export.export

    def forget_the_adapter(model: Any, folder: Path, **options: Any) -> Path:
        return real(model.replace(lora=None, adapter=None), folder, **options)

    monkeypatch.setattr(export, "export", forget_the_adapter)
    with pytest.raises(RuntimeError, match="transformers gives other answers"):
        run_stage("export", config(), StageIO.local(tmp_path / "out", policy=policy))
    assert not (tmp_path / "out" / "model" / "manifest.json").exists()


@pytest.mark.usefixtures("torch")
def test_an_encoder_decoder_is_checked_and_its_card_names_its_class(tmp_path: Path) -> None:
    policy = save(load(write_t5_folder(tmp_path / "small-t5")), tmp_path / "policy")
    result, _ = run_stage("export", config(verify="always"), StageIO.local(tmp_path / "out", policy=policy))
    assert result.metrics["verify/max_difference"] < 1e-4 and result.metrics["verify/same_choice"] == 1
    # One letter is one token, and so are a word's start and the end of the answer.
    assert result.metrics["verify/tokens"] == len(export.ANSWER) + 2
    front, text = card_of(tmp_path / "out" / "model")
    assert "AutoModelForSeq2SeqLM.from_pretrained" in text and "AutoModelForCausalLM" not in text
    assert front["base_model"] == "policy"


def test_a_lost_chat_template_is_noticed(policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = export.export

    def lose_the_template(model: Any, folder: Path, **options: Any) -> Path:
        real(model, folder, **options)
        (folder / "chat_template.jinja").unlink()
        return folder

    monkeypatch.setattr(export, "export", lose_the_template)
    with pytest.raises(RuntimeError, match="the exported tokenizer gives other ids"):
        export.run(config(verify="never"), StageIO.local(tmp_path / "out", policy=policy))


def test_without_torch_it_says_that_nothing_was_compared(
    policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "missing_package", lambda adapter: "torch")
    result = export.run(config(), StageIO.local(tmp_path / "out", policy=policy))
    assert result.metrics == {} and result.metadata["model"]["verified"] is False
    assert "were not compared" in card_of(tmp_path / "out" / "model")[1]
    with pytest.raises(UserError, match=r"export\.verify: always needs the package torch"):
        export.run(config(verify="always"), StageIO.local(tmp_path / "again", policy=policy))


@pytest.mark.parametrize(
    ("least", "passed", "said"),
    [(0.2, True, "All gates of the run passed."), (0.5, False, "**This model failed the gates of its run.**")],
)
def test_the_card_and_the_manifest_say_what_the_evaluation_found(
    least: float, passed: bool, said: str, policy: Path, tmp_path: Path
) -> None:
    io = StageIO.local(tmp_path / "out", policy=policy, samples=samples(tmp_path / "samples", min_win_rate=least))
    run_stage("export", config(verify="never"), io)
    text = card_of(tmp_path / "out" / "model")[1]
    assert f"{said}\n\n**{HEADLINE}**" in text
    manifest = read_manifest(tmp_path / "out" / "model")
    assert manifest is not None and manifest.metadata["model"]["gates_passed"] is passed


def test_a_policy_trained_in_full_has_no_adapter(tmp_path: Path) -> None:
    folder = save(load(write_folder(tmp_path / "base")), tmp_path / "policy")
    with pytest.raises(UserError, match="trained in full; write merged"):
        export.run(config(format="adapter"), StageIO.local(tmp_path / "out", policy=folder))
    export.run(config(verify="never"), StageIO.local(tmp_path / "out", policy=folder))
    text = card_of(tmp_path / "out" / "model")[1]
    assert "all weights were trained" in text and "came without a manifest" in text
