"""What export refuses and what it leaves behind; that its numbers are right is compared in tests/parity."""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from podium.errors import UserError
from podium.models import LoraSpec, export, load
from podium.models.family import init_adapter
from podium.models.weights.writing import DTYPES
from support.folders import FAMILIES, change_json, write_family_folder, write_folder, write_t5_folder

HEAD = {"kernel": jnp.ones(32), "bias": jnp.zeros(())}


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({"role": "critic", "head": HEAD}, {}, "a critic has no use"),
        ({"role": "reward"}, {}, "has no head"),
        ({}, {"format": "adapter"}, "has no adapter"),
        ({}, {"format": "onnx"}, r"export\.format: 'onnx'"),
        ({}, {"dtype": "int4"}, "dtype 'int4'"),
    ],
)
def test_says_what_cannot_be_exported(changes: Any, options: Any, message: str, tmp_path: Path) -> None:
    model = load(write_folder(tmp_path / "base")).replace(**changes)
    with pytest.raises(UserError, match=message):
        export(model, tmp_path / "out", **options)
    assert [path.name for path in tmp_path.iterdir()] == ["base"]


@pytest.mark.parametrize("alone", [False, True])
def test_a_reward_model_of_an_encoder_decoder_has_no_class_in_transformers(alone: bool, tmp_path: Path) -> None:
    model = load(write_t5_folder(tmp_path / "base"), role="reward", encoder_only=alone).replace(head=HEAD)
    with pytest.raises(UserError, match="transformers has no class for a reward model of family t5"):
        export(model, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["base"]


def test_the_adapter_of_a_part_of_a_model_is_merged_or_not_exported(tmp_path: Path) -> None:
    model = load(write_folder(tmp_path / "base"))
    model = model.replace(lora=LoraSpec(2, 4.0), metadata=model.metadata | {"part_of": "gemma3"})
    model = model.replace(adapter=init_adapter(model.config, model.lora, jax.random.key(0)))
    with pytest.raises(UserError, match="the adapter is that of a part of a gemma3 model"):
        export(model, tmp_path / "out", format="adapter")
    assert (export(model, tmp_path / "out") / "model.safetensors").is_file()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", FAMILIES)
def test_what_is_loaded_and_exported_is_loaded_as_the_same_bits(name: str, dtype: str, tmp_path: Path) -> None:
    model = load(write_family_folder(tmp_path / "base", FAMILIES[name], dtype=DTYPES[dtype][1]))
    again = load(export(model, tmp_path / "out", dtype=dtype))
    assert again.config == model.config
    jax.tree.map(np.testing.assert_array_equal, again.params, model.params)
    before, after = (load_file(tmp_path / folder / "model.safetensors") for folder in ("base", "out"))
    assert {key: value.dtype for key, value in after.items()} == {key: value.dtype for key, value in before.items()}
    assert all(np.array_equal(value, after[key]) for key, value in before.items())


def test_padding_that_is_an_end_is_not_handed_on(tmp_path: Path) -> None:
    """As SmolLM2 has it: servers and classifiers take everything from the padding token on for nothing."""
    base = write_folder(tmp_path / "base")
    change_json(base / "tokenizer_config.json", pad_token="</s>")
    folder = export(load(base), tmp_path / "out")
    assert json.loads((folder / "tokenizer_config.json").read_text())["pad_token"] == "<pad>"
    for name in ("config.json", "generation_config.json"):
        content = json.loads((folder / name).read_text())
        assert (content["eos_token_id"], content["pad_token_id"]) == (257, 258)


def test_a_second_export_leaves_no_shard_of_the_first(tmp_path: Path) -> None:
    model = load(write_folder(tmp_path / "base"))
    export(model, tmp_path / "out", max_shard_bytes=10_000)
    export(model, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").glob("*.safetensors*")] == ["model.safetensors"]
