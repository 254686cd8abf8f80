"""What is exported gives the same numbers in transformers and PEFT."""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from podium.models import LoraSpec, Model, export, load
from podium.models.families.config_json import auto_class
from podium.models.family import abstract_params, logits
from podium.models.heads import apply_head, last_token
from podium.models.transformer import forward
from support.comparison import runner, their_logits
from support.folders import FAMILIES, T5_CONFIG, write_family_folder, write_folder, write_tokenizer

LORA = LoraSpec(3, 7.0)
LAST = LoraSpec(2, 1.0, ("q_proj", "v_proj", "o_proj", "up_proj", "down_proj"), layers=1)
IDS = np.random.default_rng(5).integers(0, 256, (2, 12))


def model_of(folder: Path, lora: LoraSpec | None = LORA, **options: Any) -> Model:
    model = load(write_folder(folder, **options))
    return model if lora is None else adapted(model, lora)


def adapted(model: Model, lora: LoraSpec) -> Model:
    rng = np.random.default_rng(1)
    shapes = abstract_params(model.config, lora)[1]
    adapter = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0, 0.3, leaf.shape), jnp.float32), shapes)
    return model.replace(lora=lora, adapter=adapter)


def reward_of(folder: Path, **options: Any) -> Model:
    return with_head(model_of(folder, **options))


def with_head(model: Model) -> Model:
    kernel = 0.2 * jax.random.normal(jax.random.key(3), (model.config.embed,))
    return model.replace(role="reward", head={"kernel": kernel, "bias": jnp.float32(0.3)}, gain=-1.7, bias=0.4)


def hidden_of(model: Model, ids: np.ndarray, mask: np.ndarray) -> jax.Array:
    arrays = jnp.asarray(ids, jnp.int32), jnp.asarray(mask, bool)
    return forward(model.config, model.params, *arrays, adapter=model.adapter, lora=model.lora)


def logits_of(model: Model) -> np.ndarray:
    return np.asarray(logits(model.config, model.params, hidden_of(model, IDS, np.ones_like(IDS))))


def theirs(torch: Any, kind: str, folder: Path, **options: Any) -> Any:
    import transformers

    return getattr(transformers, f"AutoModelFor{kind}").from_pretrained(folder, **{"dtype": torch.float32} | options)


def run(torch: Any, model: Any, ids: np.ndarray = IDS) -> np.ndarray:
    with torch.no_grad():
        return model.eval()(torch.tensor(ids)).logits.float().numpy()


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("lora", [None, LORA, LoraSpec(2, 1.0, ("k_proj", "o_proj", "down_proj"), layers=1)])
def test_merged(tied: bool, lora: LoraSpec | None, tmp_path: Path, torch: Any) -> None:
    model = model_of(tmp_path / "base", lora, tie_word_embeddings=tied)
    folder = export(model, tmp_path / "out")
    found = run(torch, theirs(torch, "CausalLM", folder))
    np.testing.assert_allclose(found, logits_of(model), rtol=0, atol=2e-4)
    # And back: our own loader reads the export as a model without an adapter.
    again = load(folder)
    assert again.config == model.config
    np.testing.assert_allclose(logits_of(again), found, rtol=0, atol=2e-4)


@pytest.mark.parametrize(
    "options",
    [
        {"rope_scaling": {"rope_type": "linear", "factor": 2.0}},
        {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}, "max_position_embeddings": 8},
        {"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}},
        {
            "rope_scaling": {
                "rope_type": "llama3",
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 32,
            }
        },
        {"head_dim": 10, "rope_theta": 777.0, "rms_norm_eps": 0.01},
    ],
)
def test_options_survive(options: dict[str, Any], tmp_path: Path, torch: Any) -> None:
    model = model_of(tmp_path / "base", None, **options)
    folder = export(model, tmp_path / "out")
    assert load(folder).config == model.config
    # One row: transformers takes dynamic scaling from the longest row of a batch.
    found = run(torch, theirs(torch, "CausalLM", folder), IDS[:1])
    np.testing.assert_allclose(found, logits_of(model)[:1], rtol=0, atol=2e-4)


def test_shards_and_half_precision(tmp_path: Path, torch: Any) -> None:
    model = model_of(tmp_path / "base", tie_word_embeddings=False)
    folder = export(model, tmp_path / "out", dtype="bfloat16", max_shard_bytes=20_000)
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    files = sorted(set(index["weight_map"].values()))
    assert len(files) > 2 and files[0] == f"model-00001-of-{len(files):05d}.safetensors"
    assert all((folder / file).stat().st_size < 25_000 for file in files)
    assert index["metadata"]["total_size"] == sum(leaf.size * 2 for leaf in jax.tree.leaves(model.params))
    loaded = theirs(torch, "CausalLM", folder, dtype="auto")
    assert loaded.dtype == torch.bfloat16
    # Eight bits of mantissa: three digits of logits of size 10.
    np.testing.assert_allclose(run(torch, loaded.float()), logits_of(model), rtol=0, atol=0.5)
    np.testing.assert_allclose(run(torch, loaded.float()), logits_of(load(folder)), rtol=0, atol=2e-4)


def test_goes_with_tokenizer_template_and_generation_defaults(tmp_path: Path, torch: Any) -> None:
    from transformers import AutoTokenizer, GenerationConfig

    model = model_of(tmp_path / "base")
    folder = export(model, tmp_path / "out")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    chat = [{"role": "user", "content": "Hi"}]
    ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True).input_ids
    assert ids == model.tokenizer.encode_prompt(chat)
    assert tokenizer.pad_token_id == model.tokenizer.pad_id not in model.tokenizer.eos_ids
    generation = GenerationConfig.from_pretrained(folder)
    assert (generation.eos_token_id, generation.pad_token_id, generation.temperature) == (257, 258, 0.7)
    told = theirs(torch, "CausalLM", folder).generate(torch.tensor([ids]), max_new_tokens=4, do_sample=False)
    assert told.shape[1] <= len(ids) + 4


def rewards(model: Model, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
    raw = last_token(apply_head(model.head, hidden_of(model, ids, mask)), jnp.asarray(mask, bool))
    return np.asarray(model.gain * raw + model.bias)


@pytest.mark.parametrize("tied", [True, False])
def test_reward_model_is_a_classifier_with_one_label(tied: bool, tmp_path: Path, torch: Any) -> None:
    model = reward_of(tmp_path / "base", tie_word_embeddings=tied)
    folder = export(model, tmp_path / "out")
    # The second text is shorter: transformers looks for its end by the padding token that config.json names.
    ids, mask = IDS.copy(), np.ones_like(IDS)
    ids[1, 7:], mask[1, 7:] = model.tokenizer.pad_id, 0
    classifier = theirs(torch, "SequenceClassification", folder).eval()
    with torch.no_grad():
        found = classifier(torch.tensor(ids), attention_mask=torch.tensor(mask)).logits[:, 0].numpy()
    constant = -1.7 * 0.3 + 0.4
    np.testing.assert_allclose(found + constant, rewards(model, ids, mask), rtol=0, atol=2e-4)
    again = load(folder, role="reward")
    assert again.bias == pytest.approx(constant)
    np.testing.assert_allclose(rewards(again, ids, mask), rewards(model, ids, mask), rtol=0, atol=2e-4)


@pytest.mark.parametrize("lora", [LORA, LoraSpec(2, 1.0, ("k_proj", "o_proj", "down_proj"), layers=1)])
def test_adapter_in_peft(lora: LoraSpec, tmp_path: Path, torch: Any, peft: Any) -> None:
    model = model_of(tmp_path / "base", lora)
    folder = export(model, tmp_path / "out", format="adapter")
    base = theirs(torch, "CausalLM", tmp_path / "base")
    plain = run(torch, base)
    adapted = peft.PeftModel.from_pretrained(base, folder)
    found = run(torch, adapted)
    assert np.abs(found - plain).max() > 1, "the adapter has no effect"
    np.testing.assert_allclose(found, logits_of(model), rtol=0, atol=2e-4)
    np.testing.assert_allclose(run(torch, adapted.merge_and_unload()), logits_of(model), rtol=0, atol=2e-4)
    assert peft.PeftConfig.from_pretrained(folder).base_model_name_or_path == str(tmp_path / "base")


def test_reward_adapter_in_peft(tmp_path: Path, torch: Any, peft: Any) -> None:
    model = reward_of(tmp_path / "base")
    folder = export(model, tmp_path / "out", format="adapter")
    base = theirs(torch, "SequenceClassification", tmp_path / "base", num_labels=1)
    base.config.pad_token_id = model.tokenizer.pad_id
    found = run(torch, peft.PeftModel.from_pretrained(base, folder))[:, 0]
    expected = rewards(model, IDS, np.ones_like(IDS))
    np.testing.assert_allclose(found - 1.7 * 0.3 + 0.4, expected, rtol=0, atol=2e-4)


ROW = [int(token) for token in IDS[0] % 90], [int(token) for token in IDS[1] % 90]
MODELS = {name: (config, LORA) for name, config in FAMILIES.items() if name != "llama"}
# Of stacks of one depth the last layers may be adapted alone.
MODELS["t5, last layers"] = (T5_CONFIG | {"num_decoder_layers": 2}, LAST)
MODELS["gemma2, last layer"] = (FAMILIES["gemma2"], LAST)


@pytest.mark.parametrize("name", MODELS)
def test_every_family_merged_and_as_an_adapter(name: str, tmp_path: Path, torch: Any, peft: Any) -> None:
    config, lora = MODELS[name]
    model = adapted(load(write_family_folder(tmp_path / "base", config)), lora)
    expected = runner(model, len(ROW[0]), len(ROW[1]))([ROW])[0]
    kind = auto_class(model.config).removeprefix("AutoModelFor")
    merged = theirs(torch, kind, export(model, tmp_path / "merged")).eval()
    # Gemma: 5.7e-5 as tests compile, below 5e-5 with XLA's optimisation.
    np.testing.assert_allclose(their_logits(torch, merged, *ROW), expected, rtol=0, atol=2e-4)
    base = theirs(torch, kind, tmp_path / "base").eval()
    plain = their_logits(torch, base, *ROW)
    on_top = peft.PeftModel.from_pretrained(base, export(model, tmp_path / "adapter", format="adapter")).eval()
    assert np.abs(their_logits(torch, on_top, *ROW) - plain).max() > 0.1, "the adapter has no effect"
    np.testing.assert_allclose(their_logits(torch, on_top, *ROW), expected, rtol=0, atol=2e-4)


@pytest.mark.parametrize("name", ["qwen3", "gemma", "gemma3_text"])
def test_reward_models_of_other_families_are_classifiers_too(name: str, tmp_path: Path, torch: Any) -> None:
    base = load(write_family_folder(tmp_path / "base", FAMILIES[name]))
    model = with_head(base)
    classifier = theirs(torch, "SequenceClassification", export(model, tmp_path / "out"))
    found = run(torch, classifier)[:, 0]
    expected = rewards(model, IDS, np.ones_like(IDS))
    np.testing.assert_allclose(found - 1.7 * 0.3 + 0.4, expected, rtol=0, atol=2e-4)


def test_the_text_model_of_a_multimodal_gemma3(tmp_path: Path, torch: Any) -> None:
    """From the folder that transformers writes, vision tower and all."""
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration

    # Transformers caps the logits of the text model alone; no published model has a cap.
    without = ("model_type", "final_logit_softcapping")
    text = {name: value for name, value in FAMILIES["gemma3_text"].items() if name not in without}
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    torch.manual_seed(0)
    sizes = {"image_size": 28, "patch_size": 14}
    whole = Gemma3ForConditionalGeneration(
        Gemma3Config(text_config=text, vision_config=vision | sizes, mm_tokens_per_image=4)
    )
    with torch.no_grad():
        for name, value in whole.named_parameters():
            value.copy_(torch.randn_like(value) * 0.15 + ("norm" in name))
    whole.save_pretrained(tmp_path / "base")
    write_tokenizer(tmp_path / "base")
    model = load(tmp_path / "base")
    found = runner(model, len(ROW[0]), len(ROW[1]))([ROW])[0]
    np.testing.assert_allclose(found, their_logits(torch, whole.eval(), *ROW), rtol=0, atol=2e-4)
    exported = theirs(torch, "CausalLM", export(model, tmp_path / "out"))
    assert exported.config.model_type == "gemma3_text"
    np.testing.assert_allclose(their_logits(torch, exported.eval(), *ROW), found, rtol=0, atol=2e-4)
