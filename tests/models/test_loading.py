"""A folder of weights in: as it should be, and in every way in which users' folders are broken."""

import json
import shutil
import struct
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from podium.errors import UserError
from podium.models import TransformerConfig, load
from podium.models.family import abstract_params
from podium.parallel.mesh import make_mesh
from support.folders import change_json, change_tensors, write_folder, write_json

ONE_BAD = np.where(np.arange(32) == 9, -np.inf, 1.0).astype(np.float32)
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
MESHES = ({"fsdp": 8}, {"data": 2, "fsdp": 2, "tensor": 2}, {"data": 4, "fsdp": 1, "tensor": 2})


def test_puts_every_tensor_where_the_tree_wants_it(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, tie_word_embeddings=False, head_dim=6)
    model = load(folder)
    config, tensors = model.config, load_file(folder / "model.safetensors")
    assert config == TransformerConfig(
        vocab_size=300,
        embed=32,
        layers=2,
        heads=4,
        kv_heads=2,
        head_dim=6,
        mlp=48,
        max_position=128,
        rope_theta=10000.0,
        norm_eps=1e-5,
        tie_embeddings=False,
    )
    expected = abstract_params(config)[0]
    assert jax.tree.map(lambda x: (x.shape, x.dtype), model.params) == jax.tree.map(
        lambda x: (x.shape, x.dtype), expected
    )
    block = {name.removeprefix("model.layers.1."): value for name, value in tensors.items()}
    attention = jax.tree.map(lambda x: np.asarray(x[1]), model.params["blocks"]["attention"])
    # Row 6 + 2 of the query matrix is place 2 of head 1; column 6 + 2 of the output matrix likewise.
    assert np.array_equal(attention["q_proj"]["kernel"][:, 1, 2], block["self_attn.q_proj.weight"][8])
    assert np.array_equal(attention["o_proj"]["kernel"][1, 2], block["self_attn.o_proj.weight"][:, 8])
    assert np.array_equal(model.params["lm_head"]["kernel"].T, tensors["lm_head.weight"])
    assert (model.role, model.base, model.head) == ("policy", str(tmp_path), None)
    assert model.metadata["generation_config"] == {"eos_token_id": 257, "temperature": 0.7}


@pytest.mark.parametrize(
    "sizes", [{"fsdp": 8}, {"data": 2, "fsdp": 2, "tensor": 2}, {"fsdp": 1, "tensor": 2, "data": 4}]
)
def test_a_mesh_gets_the_same_numbers_in_slices(sizes: dict[str, int], tmp_path: Path) -> None:
    folder = write_folder(tmp_path, tie_word_embeddings=False)
    whole, spread = load(folder), load(folder, mesh=make_mesh(**sizes))
    jax.tree.map(np.testing.assert_array_equal, whole.params, spread.params)
    kernel = spread.params["blocks"]["mlp"]["gate_proj"]["kernel"]
    parts = sizes.get("fsdp", 1) * sizes.get("tensor", 1)
    assert kernel.addressable_shards[0].data.size * parts == kernel.size


NORM, TABLE = "model.norm.weight", "model.embed_tokens.weight"


def write_shards(folder: Path) -> dict[str, str]:
    """Write a model in two shards of half precision, the final norm in the second; returns the index."""
    tensors = load_file(write_folder(folder) / "model.safetensors")
    (folder / "model.safetensors").unlink()
    weight_map = {name: f"model-{2 if name == NORM else 1}.safetensors" for name in tensors}
    for file in set(weight_map.values()):
        save_file(
            {name: tensors[name].astype(np.float16) for name in tensors if weight_map[name] == file}, folder / file
        )
    write_json(folder / "model.safetensors.index.json", {"weight_map": weight_map})
    return weight_map


def test_reads_shards_and_half_precision(tmp_path: Path) -> None:
    write_shards(tmp_path)
    table = load(tmp_path).params["embedder"]["table"]
    assert table.dtype == np.float32
    assert np.array_equal(table, load_file(tmp_path / "model-1.safetensors")[TABLE].astype(np.float32))


def test_the_index_says_which_shard_counts(tmp_path: Path) -> None:
    write_shards(tmp_path)
    second = load_file(tmp_path / "model-2.safetensors")
    save_file(second | {TABLE: np.zeros((300, 32), np.float16)}, tmp_path / "model-2.safetensors")
    assert np.asarray(load(tmp_path).params["embedder"]["table"]).any()


def test_a_missing_shard_and_a_missing_tensor_are_named(tmp_path: Path) -> None:
    write_shards(tmp_path)
    save_file({"model.other": np.ones(32, np.float16)}, tmp_path / "model-2.safetensors")
    with pytest.raises(UserError, match=r"model-2\.safetensors: tensor model\.norm\.weight is missing"):
        load(tmp_path)
    (tmp_path / "model-2.safetensors").unlink()
    with pytest.raises(UserError, match=r"model-2\.safetensors: no such file, though the index lists it"):
        load(tmp_path)


@pytest.mark.parametrize("file", [None, 2, ["model-1.safetensors"], "../model-1.safetensors", "/model-1.safetensors"])
def test_an_index_that_leads_out_of_the_folder_is_refused(file: Any, tmp_path: Path) -> None:
    weight_map = write_shards(tmp_path)
    change_json(tmp_path / "model.safetensors.index.json", weight_map=weight_map | {NORM: file})
    with pytest.raises(UserError, match=r"index\.json: tensor model\.norm\.weight is in .*, which is no file of this"):
        load(tmp_path)


def test_takes_a_tied_head_that_was_saved_twice_only_if_it_is_the_same(tmp_path: Path) -> None:
    folder = write_folder(tmp_path)
    table = load_file(folder / "model.safetensors")["model.embed_tokens.weight"]
    change_tensors(folder, lm_head__weight=table)
    assert "lm_head" not in load(folder).params
    change_tensors(folder, lm_head__weight=table + 1)
    with pytest.raises(UserError, match=r"lm_head\.weight differs from the embedding"):
        load(folder)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"model_type": "gpt2"}, "model_type 'gpt2'"),
        ({"hidden_act": "quick_gelu"}, "hidden_act='quick_gelu'"),
        ({"pretraining_tp": 2}, "pretraining_tp=2"),
        ({"sliding_window": 64}, "sliding_window=64"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "layer_types"),
        ({"model_type": "qwen2", "mlp_bias": True}, "mlp_bias=True"),
        ({"rope_scaling": {"rope_type": "longrope", "factor": 2.0}}, "rope_type 'longrope'"),
        ({"rope_scaling": {"type": "mrope"}}, "rope_type 'mrope'"),
        ({"rope_scaling": {"type": "linear"}}, "linear needs factor"),
        ({"rope_scaling": {"type": "llama3", "factor": 2.0}}, "llama3 needs high_freq_factor"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0, "beta_fast": 3}}, "beta_fast=3"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor=0.5"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
        ({"num_local_experts": 8}, "num_local_experts=8"),
        ({"auto_map": {"AutoModel": "code.py"}}, "auto_map"),
        ({"hidden_size": None}, "hidden_size is None"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers=1000000000 is not supported; write 10000 at most"),
        ({"hidden_size": 10**320}, "hidden_size is 1000"),
        ({"num_key_value_heads": 3}, "3 key/value heads"),
        ({"hidden_size": 3}, "head_dim 0"),
        ({"hidden_act": ["silu"]}, "hidden_act=['silu']"),
        ({"layer_types": 2}, "layer_types is 2"),
        ({"rms_norm_eps": -1e-5}, "rms_norm_eps is -1e-05; write a number above 0"),
        ({"rms_norm_eps": float("nan")}, "rms_norm_eps is nan"),
        ({"rope_theta": 0}, "rope_theta is 0; write a number above 1"),
        ({"rope_scaling": {"rope_type": ["linear"]}}, "rope_type ['linear'] is not supported"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": "4"}}, "rope options: factor is '4'"),
        ({"rope_scaling": {"rope_type": "linear", "factor": 0}}, "rope options: factor is 0; write a number above 0"),
        ({"rope_scaling": {"rope_type": "dynamic", "factor": float("inf")}}, "factor is inf"),
        ({"rope_scaling": {"rope_type": "linear", "factor": 2.0, "rope_theta": "1e4"}}, "rope_theta is '1e4'"),
        ({"rope_scaling": LLAMA3 | {"low_freq_factor": 4.0}}, "low_freq_factor=4 is not supported"),
        ({"rope_scaling": LLAMA3 | {"original_max_position_embeddings": 0}}, "original_max_position_embeddings is 0"),
    ],
)
def test_names_the_option_it_does_not_follow(options: dict[str, Any], named: str, tmp_path: Path) -> None:
    folder = write_folder(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    write_json(folder / "config.json", {key: value for key, value in (config | options).items() if value is not None})
    with pytest.raises(UserError, match=r"config\.json") as error:
        load(folder)
    assert named in str(error.value)


def test_passes_over_options_that_change_nothing(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, num_local_experts=0, is_llama_config=True, _flag="x", sliding_window=None)
    change_json(folder / "config.json", sliding_window=None, rope_scaling=None, quantization_config=None)
    assert load(folder).config.rope_scaling is None


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("config.json", "no such file; a model folder has config.json"),
        ("model.safetensors", r"has no model\.safetensors and no model\.safetensors\.index\.json"),
        ("tokenizer.json", "has no tokenizer"),
    ],
)
def test_says_which_file_is_missing(file: str, message: str, tmp_path: Path) -> None:
    folder = write_folder(tmp_path)
    (folder / file).unlink()
    with pytest.raises(UserError, match=message):
        load(folder)


def test_says_what_to_do_with_other_formats(tmp_path: Path) -> None:
    folder = write_folder(tmp_path)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"convert pytorch_model\.bin first"):
        load(folder)


@pytest.mark.parametrize("kept", [0, 4, 100, -8])
def test_refuses_a_truncated_file(kept: int, tmp_path: Path) -> None:
    path = write_folder(tmp_path) / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(UserError, match=r"model\.safetensors: not a readable safetensors file"):
        load(tmp_path)


def test_refuses_a_header_that_is_nested_too_deeply(tmp_path: Path) -> None:
    header = b'{"x": ' + b"[" * 100_000
    (write_folder(tmp_path) / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(UserError, match=r"model\.safetensors: not a readable safetensors file"):
        load(tmp_path)


def test_names_the_tensor_within_which_a_file_ends(tmp_path: Path) -> None:
    path = write_folder(tmp_path) / "model.safetensors"
    whole = path.read_bytes()
    (size,) = struct.unpack("<Q", whole[:8])
    header = json.loads(whole[8 : 8 + size])
    begin, end = (8 + size + place for place in header["model.layers.1.mlp.up_proj.weight"]["data_offsets"])
    for kept in (begin + 1, end - 1):
        path.write_bytes(whole[:kept])
        message = rf"it ends within tensor model\.layers\.1\.mlp\.up_proj\.weight: {kept} of {len(whole)} bytes"
        with pytest.raises(UserError, match=message):
            load(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"shape": [48, 31]},
        {"shape": ["48", 32]},
        {"dtype": "F16"},
        {"dtype": "Q4"},
        {"dtype": ["F32"]},
        {"data_offsets": [0, 10]},
        {"data_offsets": [5]},
        {"data_offsets": None},
    ],
)
def test_names_the_tensor_whose_header_is_wrong(change: dict[str, Any], tmp_path: Path) -> None:
    path = write_folder(tmp_path) / "model.safetensors"
    whole = path.read_bytes()
    (size,) = struct.unpack("<Q", whole[:8])
    header = json.loads(whole[8 : 8 + size])
    header["model.norm.weight"] |= change
    changed = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(changed)) + changed + whole[8 + size :])
    with pytest.raises(UserError, match=r"model\.safetensors: .* of tensor model\.norm\.weight do not go together"):
        load(tmp_path)


@pytest.mark.parametrize("content", [b'{"model_type": ', b"\xff{}", b"[" * 100_000])
def test_refuses_a_config_that_is_no_json(content: bytes, tmp_path: Path) -> None:
    folder = write_folder(tmp_path)
    (folder / "config.json").write_bytes(content)
    with pytest.raises(UserError, match=r"config\.json: not readable as JSON"):
        load(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model__norm__weight": None}, r"tensor model\.norm\.weight is missing"),
        ({"model__norm__weight": np.ones(31, np.float32)}, r"model\.norm\.weight has shape \[31\].* \[32\]"),
        ({"model__norm__weight": np.ones(32, np.int8)}, r"model\.norm\.weight has dtype I8"),
        ({"model__extra__weight": np.ones(3, np.float32)}, r"model\.extra\.weight belongs to no part"),
        ({"model__norm__weight": np.full(32, np.nan, np.float32)}, r"model\.norm\.weight holds NaN or infinity"),
        (
            {"model__norm__weight": ONE_BAD},
            r"model\.norm\.weight holds NaN or infinity",
        ),
    ],
)
def test_names_the_tensor_that_is_wrong(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    change_tensors(write_folder(tmp_path), **change)
    with pytest.raises(UserError, match=message):
        load(tmp_path)


def test_one_bad_number_in_a_large_tensor_is_enough(tmp_path: Path) -> None:
    folder = write_folder(tmp_path)
    table = load_file(folder / "model.safetensors")["model.embed_tokens.weight"]
    table[123, 4] = np.inf
    change_tensors(folder, model__embed_tokens__weight=table)
    with pytest.raises(UserError, match=r"embed_tokens\.weight holds NaN or infinity"):
        load(folder)


def test_refuses_a_tokenizer_with_more_tokens_than_the_embedding(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, vocab_size=258)
    with pytest.raises(UserError, match="the tokenizer has 259 tokens, the embedding 258 rows"):
        load(folder)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("./not/there", "no such model folder"),
        ("not/there/at/all", "no such model folder"),
        ("somebody/some-model", "cannot be fetched from the Hugging Face Hub"),
    ],
)
def test_says_what_to_write_when_there_is_no_such_model(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        load(name)
    assert "write the path of a" in str(error.value)


def test_refuses_a_file_and_an_unknown_dtype(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").touch()
    with pytest.raises(UserError, match="import-weights"):
        load(tmp_path / "model.gguf")
    with pytest.raises(UserError, match=r"model\.dtype: 'float8'"):
        load(write_folder(tmp_path / "model"), dtype="float8")


def test_the_folder_may_be_moved(tmp_path: Path) -> None:
    digest = load(write_folder(tmp_path / "a")).base_digest
    shutil.move(tmp_path / "a", tmp_path / "b")
    assert load(tmp_path / "b").base_digest == digest
    table = load_file(tmp_path / "b" / "model.safetensors")["model.embed_tokens.weight"]
    table[299, 31] += 1e-6
    change_tensors(tmp_path / "b", model__embed_tokens__weight=table)
    assert load(tmp_path / "b").base_digest != digest
