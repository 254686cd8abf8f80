"""Save and load again: the same bits, in every form a model is trained in."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from podium.errors import UserError
from podium.models import LoraSpec, Model, load, save
from podium.models.family import abstract_params, init_adapter
from podium.parallel.mesh import make_mesh
from support.folders import change_json, change_tensors, write_folder, write_t5_folder

LORA = LoraSpec(3, 7.0, ("q_proj", "o_proj", "down_proj"))


def adapted(model: Model, lora: LoraSpec = LORA) -> Model:
    """Put a random adapter on a model, B included."""
    rng = np.random.default_rng(1)
    shapes = abstract_params(model.config, lora)[1]
    tree = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0, 0.3, leaf.shape), jnp.float32), shapes)
    return model.replace(lora=lora, adapter=tree)


def with_head(model: Model, role: str = "reward") -> Model:
    head = {"kernel": jax.random.normal(jax.random.key(3), (model.config.embed,)), "bias": jnp.float32(0.3)}
    return model.replace(role=role, head=head, gain=1.0 / 3.0, bias=-0.1)


def same_bits(a: Any, b: Any) -> None:
    jax.tree.map(np.testing.assert_array_equal, a, b)
    assert jax.tree.map(lambda x: x.dtype, a) == jax.tree.map(lambda x: x.dtype, b)


@pytest.mark.parametrize("role", ["policy", "reward", "critic"])
@pytest.mark.parametrize("lora", [None, LORA, LoraSpec(2, 4.0, layers=1)], ids=["full", "adapter", "last layer"])
def test_gives_back_the_same_bits(role: str, lora: LoraSpec | None, tmp_path: Path) -> None:
    model = load(write_folder(tmp_path / "base", tie_word_embeddings=False))
    model = adapted(model, lora) if lora else model
    model = model if role == "policy" else with_head(model, role)
    model = model.replace(metadata=model.metadata | {"note": "ä"})
    again = load(save(model, tmp_path / "saved"), role=role)
    same_bits(again.params, model.params)
    same_bits(again.adapter, model.adapter)
    same_bits(again.head, model.head)
    kept = ("config", "lora", "gain", "bias", "role", "metadata")
    assert [getattr(again, name) for name in kept] == [getattr(model, name) for name in kept]
    assert again.tokenizer.encode_prompt([{"role": "user", "content": "é"}]) == model.tokenizer.encode_prompt(
        [{"role": "user", "content": "é"}]
    )
    if lora:
        assert (again.base, again.base_digest) == (model.base, model.base_digest)
        assert not list((tmp_path / "saved").glob("model*"))
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("part", ["policy", "reward", "encoder alone"])
@pytest.mark.parametrize("lora", [None, LORA, LoraSpec(2, 4.0, layers=1)], ids=["full", "adapter", "last layers"])
def test_gives_back_the_same_bits_of_a_t5(part: str, lora: LoraSpec | None, tmp_path: Path) -> None:
    role, alone = ("policy" if part == "policy" else "reward"), part == "encoder alone"
    base = load(write_t5_folder(tmp_path / "base", num_decoder_layers=2), role=role, encoder_only=alone)
    assert ("decoder" in base.params, "lm_head" in base.params) == (not alone, not alone)
    model = adapted(base, lora) if lora else base
    model = model if part == "policy" else with_head(model, role)
    again = load(save(model, tmp_path / "saved"), role=role)
    same_bits(again.params, model.params)
    same_bits(again.adapter, model.adapter)
    same_bits(again.head, model.head)
    kept = ("config", "lora", "gain", "bias", "role", "metadata")
    assert [getattr(again, name) for name in kept] == [getattr(model, name) for name in kept]
    assert again.tokenizer.same_as(model.tokenizer) and again.tokenizer.apart


def test_the_encoder_of_a_saved_model_can_be_used_alone(tmp_path: Path) -> None:
    """As a reward model that starts from a tuned policy, with its adapter."""
    base = load(write_t5_folder(tmp_path / "base"))
    policy = adapted(base)
    save(policy, tmp_path / "saved")
    alone = load(tmp_path / "saved", role="reward", encoder_only=True)
    same_bits(alone.params, {name: policy.params[name] for name in ("embedder", "encoder")})
    same_bits(alone.adapter, {"encoder": policy.adapter["encoder"]})
    shared = load(tmp_path / "saved", role="reward", encoder_only=True, shared=base)
    assert shared.params["encoder"] is base.params["encoder"] and "decoder" not in shared.params
    # And not the other way round: what lacks a decoder lends none.
    whole = load(tmp_path / "saved", shared=alone)
    same_bits(whole.params, policy.params)


def test_an_encoder_alone_is_a_reward_model_and_nothing_else(tmp_path: Path) -> None:
    folder = write_t5_folder(tmp_path / "base")
    with pytest.raises(UserError, match="an encoder alone gives scores, but is no policy"):
        load(folder, encoder_only=True)
    save(with_head(load(folder, role="reward", encoder_only=True)), tmp_path / "saved")
    with pytest.raises(UserError, match="but is no critic"):
        load(tmp_path / "saved", role="critic")
    with pytest.raises(UserError, match=r"is a decoder-only model \(llama\) and has no encoder"):
        load(write_folder(tmp_path / "llama"), role="reward", encoder_only=True)


def test_layers_cannot_be_chosen_where_stacks_differ_in_depth(tmp_path: Path) -> None:
    model = adapted(load(write_t5_folder(tmp_path / "base")), LoraSpec(2, 4.0, layers=1))
    refused = r"lora\.layers: the encoder has 2 layers, the decoder 3"
    with pytest.raises(UserError, match=refused):
        init_adapter(model.config, LoraSpec(2, 4.0, layers=1), jax.random.key(0))
    with pytest.raises(UserError, match=refused):
        save(model, tmp_path / "saved")
    # The encoder alone is one stack.
    alone = load(tmp_path / "base", role="reward", encoder_only=True)
    save(adapted(alone, LoraSpec(2, 4.0, layers=1)), tmp_path / "saved")
    assert load(tmp_path / "saved", role="reward").lora == LoraSpec(2, 4.0, layers=1)


def test_the_adapter_of_an_ungated_t5_names_what_there_is(tmp_path: Path) -> None:
    folder = write_t5_folder(tmp_path / "base", feed_forward_proj="relu", num_decoder_layers=2)
    saved = save(adapted(load(folder), LoraSpec(2, 4.0, layers=1)), tmp_path / "saved")
    content = json.loads((saved / "adapter_config.json").read_text())
    assert content["target_modules"] == ["q", "k", "v", "o", "wi", "wo"]
    assert (content["task_type"], content["layers_to_transform"], content["layers_pattern"]) == (
        "SEQ_2_SEQ_LM",
        [1],
        "block",
    )
    assert "gate_proj" not in load(saved).lora.target_modules


def test_a_spread_adapter_is_saved_and_loaded_in_slices(tmp_path: Path) -> None:
    mesh = make_mesh(fsdp=2, tensor=2, data=2)
    model = adapted(load(write_folder(tmp_path / "base")))
    save(model, tmp_path / "one")
    spread = load(tmp_path / "one", mesh=mesh)
    save(spread, tmp_path / "two")
    same_bits(load(tmp_path / "two").adapter, model.adapter)
    kernel = spread.adapter["blocks"]["attention"]["q_proj"]["lora_a"]
    assert kernel.addressable_shards[0].data.shape == (2, 16, 3)


def test_a_changed_base_is_noticed(tmp_path: Path) -> None:
    base = write_folder(tmp_path / "base")
    save(adapted(load(base)), tmp_path / "saved")
    norm = load_file(base / "model.safetensors")["model.norm.weight"]
    change_tensors(base, model__norm__weight=norm * np.float32(1.001))
    with pytest.raises(UserError, match=r"base: is not the model that the adapter in .*saved was trained on"):
        load(tmp_path / "saved")


def test_a_moved_base_is_named_or_shared(tmp_path: Path) -> None:
    base = load(write_folder(tmp_path / "base"))
    model = adapted(base)
    save(model, tmp_path / "saved")
    (tmp_path / "base").rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="its base model is not there"):
        load(tmp_path / "saved")
    same_bits(load(tmp_path / "saved", base=tmp_path / "elsewhere").adapter, model.adapter)
    shared = load(tmp_path / "saved", shared=base, dtype="bfloat16")
    assert shared.params is base.params and shared.config.dtype == "bfloat16"


def test_writing_again_leaves_nothing_of_the_old_form_and_all_of_the_rest(tmp_path: Path) -> None:
    model = load(write_folder(tmp_path / "base"))
    folder = tmp_path / "saved"
    save(with_head(adapted(model)), folder)
    (folder / "metrics.jsonl").write_text("{}\n")
    save(model, folder)
    assert load(folder).head is None
    names = {path.name for path in folder.iterdir()}
    assert "metrics.jsonl" in names and not {"adapter_config.json", "head.safetensors"} & names


def test_a_failure_leaves_the_old_folder_as_it_was(tmp_path: Path) -> None:
    model = with_head(load(write_folder(tmp_path / "base")))
    folder = save(model, tmp_path / "saved")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(TypeError):
        save(model.replace(gain=2.0, metadata={"not JSON": object()}), folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "saved"]


def test_a_full_disk_is_said_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(write_folder(tmp_path / "base"))

    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("podium.models.saving.write_checkpoint", fail)
    with pytest.raises(UserError, match=r"saved: no space left on the disk; free some, then"):
        save(model, tmp_path / "saved")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base"]


def test_an_adapter_without_a_base_is_our_own_mistake(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="base"):
        save(adapted(load(write_folder(tmp_path / "base"))).replace(base=""), tmp_path / "saved")


def test_a_reward_model_is_no_policy(tmp_path: Path) -> None:
    save(with_head(load(write_folder(tmp_path / "base"))), tmp_path / "saved")
    with pytest.raises(UserError, match="holds a reward model"):
        load(tmp_path / "saved")
    assert load(tmp_path / "saved", role="critic").head is not None


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        ("podium_model.json", {"format": 99}, "has another format"),
        ("podium_model.json", {"metadata": True}, "metadata is True"),
        ("podium_model.json", {"gain": None}, "gain is None"),
        ("adapter_config.json", {"use_rslora": True}, "use_rslora=True"),
        ("adapter_config.json", {"use_dora": True}, "use_dora=True"),
        ("adapter_config.json", {"rank_pattern": {"q_proj": 2}}, "rank_pattern"),
        ("adapter_config.json", {"peft_type": "IA3"}, "peft_type 'IA3'"),
        ("adapter_config.json", {"bias": "all"}, "bias='all'"),
        ("adapter_config.json", {"layers_pattern": "block"}, "layers_pattern='block'"),
        ("adapter_config.json", {"exclude_modules": ["q_proj"]}, "exclude_modules"),
        ("adapter_config.json", {"layer_replication": [[0, 2]]}, "layer_replication"),
        ("adapter_config.json", {"r": None}, "r is None; write a positive whole number"),
        ("adapter_config.json", {"r": -2}, "r is -2; write a positive whole number"),
        ("adapter_config.json", {"lora_alpha": "8"}, "lora_alpha is '8'"),
        ("adapter_config.json", {"target_modules": []}, r"target_modules is \[\]"),
        ("adapter_config.json", {"target_modules": [["q_proj"]]}, r"target_modules is \[\['q_proj'\]\]"),
        ("adapter_config.json", {"layers_to_transform": 1}, "layers_to_transform=1 is not supported"),
        ("adapter_config.json", {"layers_to_transform": [None, 1]}, r"layers_to_transform=\[None, 1\]"),
        ("adapter_config.json", {"target_modules": ["lm_head"]}, "lm_head"),
        ("adapter_config.json", {"layers_to_transform": [0]}, r"layers_to_transform=\[0\] is not supported for 2"),
        ("adapter_config.json", {"r": 4}, r"lora_A\.weight has shape"),
    ],
)
def test_names_what_is_wrong_with_a_saved_adapter(file: str, changes: Any, message: str, tmp_path: Path) -> None:
    save(adapted(load(write_folder(tmp_path / "base"))), tmp_path / "saved")
    change_json(tmp_path / "saved" / file, **changes)
    with pytest.raises(UserError, match=message):
        load(tmp_path / "saved")


def test_a_bare_adapter_is_refused(tmp_path: Path) -> None:
    folder = save(adapted(load(write_folder(tmp_path / "base"))), tmp_path / "saved")
    (folder / "podium_model.json").unlink()
    with pytest.raises(UserError, match="holds a bare adapter"):
        load(folder)


def test_the_manifest_says_what_the_folder_is(tmp_path: Path) -> None:
    model = with_head(adapted(load(write_folder(tmp_path / "base"))))
    content = json.loads((save(model, tmp_path / "saved") / "podium_model.json").read_text())
    assert content["lora"] == dataclasses.asdict(LORA) | {"target_modules": list(LORA.target_modules)}
    assert (content["role"], content["base"]) == ("reward", str(tmp_path / "base"))
