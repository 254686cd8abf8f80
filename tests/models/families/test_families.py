"""config.json and tensor names of every family, read and written; what their networks compute: see tests/parity."""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from podium.errors import UserError
from podium.models import EncoderDecoderConfig, LoraSpec, TransformerConfig, load, save
from podium.models.config import NetworkConfig, RopeScaling
from podium.models.families.config_json import config_json, parse_config
from podium.models.weights.layout import adapter_leaves, file_shapes, leaves
from podium.parallel.mesh import make_mesh
from support.folders import change_json, change_tensors, write_folder, write_json, write_t5_folder

SIZES = {
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
T5 = {"vocab_size": 90, "d_model": 16, "d_ff": 24, "num_layers": 2, "num_heads": 3, "decoder_start_token_id": 0}
LINEAR = {"rope_type": "linear", "factor": 8.0}


def parse(family: str, **options: Any) -> Any:
    sizes = {} if family == "gemma3" else T5 if "t5" in family else SIZES
    return parse_config(sizes | {"model_type": family} | options, "config.json")


def refusal(family: str, **options: Any) -> str:
    with pytest.raises(UserError, match=r"^config\.json: ") as error:
        parse(family, **options)
    return str(error.value)


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        ("mistral", {"sliding_window": 4096, "sliding_layers": (True,) * 4, "head_dim": 8, "max_position": 131072}),
        ("qwen2", {"attention_bias": True, "output_bias": False, "sliding_layers": ()}),
        ("qwen3", {"qk_norm": True, "head_dim": 128, "attention_bias": False}),
        (
            "gemma",
            {
                "head_dim": 256,
                "activation": "gelu_tanh",
                "unit_offset": True,
                "embedding_scale": 32**0.5,
                "tie_embeddings": True,
                "sandwich_norms": False,
            },
        ),
        (
            "gemma2",
            {
                "sliding_window": 4096,
                "sliding_layers": (True, False, True, False),
                "attention_softcap": 50.0,
                "logits_softcap": 30.0,
                "query_scale": None,
                "sandwich_norms": True,
                "rope_theta": 10000.0,
            },
        ),
        (
            "gemma3_text",
            {
                "sliding_layers": (True,) * 4,
                "rope_theta": 1e6,
                "local_rope_theta": 1e4,
                "logits_softcap": None,
                "attention_softcap": None,
                "qk_norm": True,
                "max_position": 131072,
            },
        ),
        (
            "cohere",
            {
                "norm": "layer",
                "norm_eps": 1e-5,
                "parallel_block": True,
                "rope_interleaved": True,
                "logits_scale": 0.0625,
                "rope_theta": 500000.0,
                "tie_embeddings": True,
            },
        ),
        (
            "t5",
            {
                "gated": False,
                "activation": "relu",
                "logits_scale": 0.25,
                "tie_embeddings": True,
                "query_scale": 1.0,
                "head_dim": 64,
                "decoder_layers": 2,
                "position_buckets": 32,
                "max_distance": 128,
            },
        ),
        ("mt5", {"gated": True, "activation": "gelu_tanh", "logits_scale": 1.0, "start_id": 0}),
    ],
)
def test_assumes_what_transformers_does_for_what_is_left_out(family: str, expected: dict[str, Any]) -> None:
    config = vars(parse(family))
    assert {name: config[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("family", "options", "expected"),
    [
        (
            "qwen2",
            {"use_sliding_window": True, "max_window_layers": 3},
            {"sliding_layers": (False, False, False, True)},
        ),
        ("qwen3", {"use_sliding_window": False, "sliding_window": 64}, {"sliding_layers": (), "sliding_window": None}),
        ("mistral", {"sliding_window": None}, {"sliding_layers": (), "sliding_window": None}),
        ("gemma", {"hidden_act": "gelu", "hidden_activation": None}, {"activation": "gelu_tanh"}),
        ("gemma2", {"query_pre_attn_scalar": 144}, {"query_scale": 144**-0.5}),
        ("gemma2", {"final_logit_softcapping": None}, {"logits_softcap": None, "attention_softcap": 50.0}),
        ("gemma3_text", {"sliding_window_pattern": 2}, {"sliding_layers": (True, False, True, False)}),
        (
            "gemma3_text",
            {"rope_theta": 5e5, "rope_local_base_freq": 70.0, "rope_scaling": LINEAR},
            {
                "rope_theta": 5e5,
                "local_rope_theta": 70.0,
                "rope_scaling": RopeScaling("linear", 8.0, original_max_position=131072),
            },
        ),
        (
            "gemma3_text",
            {
                "rope_parameters": {
                    "full_attention": LINEAR | {"rope_theta": 3e5},
                    "sliding_attention": {"rope_type": "default", "rope_theta": 50.0},
                }
            },
            {"rope_theta": 3e5, "local_rope_theta": 50.0},
        ),
        ("t5", {"tie_word_embeddings": False, "feed_forward_proj": "gated-gelu"}, {"logits_scale": 1.0, "gated": True}),
        ("t5", {"tie_word_embeddings": True, "scale_decoder_outputs": False}, {"logits_scale": 1.0}),
        ("t5", {"feed_forward_proj": "gated-gelu", "dense_act_fn": "gelu"}, {"activation": "gelu", "gated": True}),
        ("t5", {"num_decoder_layers": 5}, {"encoder_layers": 2, "decoder_layers": 5, "layers": None}),
        ("mt5", {"tie_word_embeddings": False}, {"tie_embeddings": False, "logits_scale": 1.0}),
    ],
)
def test_follows_what_is_said(family: str, options: dict[str, Any], expected: dict[str, Any]) -> None:
    config = vars(parse(family, **options))
    assert {name: config.get(name) for name in expected} == expected


@pytest.mark.parametrize(
    ("family", "options", "named"),
    [
        ("mistral", {"layer_types": ["full_attention"] * 4}, "layer_types"),
        ("qwen2", {"layer_types": ["sliding_attention"] * 4}, "write sliding_window"),
        ("qwen2", {"layer_types": ["full_attention"]}, "each of 4 layers"),
        ("qwen3", {"layer_types": ["chunked_attention"] * 4}, "layer_types"),
        ("qwen3", {"mlp_bias": True}, "mlp_bias=True"),
        ("gemma", {"hidden_activation": "silu"}, "hidden_activation='silu'"),
        ("gemma", {"use_bidirectional_attention": True}, "use_bidirectional_attention=True"),
        ("gemma2", {"use_bidirectional_attention": "all"}, "use_bidirectional_attention='all'"),
        ("gemma2", {"query_pre_attn_scalar": "224"}, "query_pre_attn_scalar is '224'"),
        ("gemma2", {"sliding_window_size": 64}, "sliding_window_size=64"),
        ("gemma3_text", {"attn_logit_softcapping": 50.0}, "attn_logit_softcapping=50.0"),
        ("gemma3_text", {"rope_parameters": LINEAR}, "rope_parameters"),
        ("gemma3_text", {"rope_parameters": {"sliding_attention": LINEAR}}, "rope_type default"),
        ("gemma3_text", {"rope_scaling": {"rope_type": "longrope"}}, "rope_type 'longrope'"),
        ("gemma3", {"text_config": {"model_type": "gemma2"}}, "text_config: model_type='gemma2'"),
        (
            "gemma3",
            {"text_config": SIZES | {"final_logit_softcapping": 9.0}},
            "text_config: final_logit_softcapping=9.0",
        ),
        ("gemma3", {"text_config": {}}, "text_config: hidden_size is None"),
        ("gemma3", {"text_config": SIZES | {"num_experts": 3}}, "text_config: num_experts=3"),
        ("gemma3", {"quantization_config": {"bits": 4}, "text_config": SIZES}, "quantization_config"),
        ("cohere", {"use_qk_norm": True}, "use_qk_norm=True"),
        ("cohere", {"sliding_window": 4}, "sliding_window=4"),
        ("llama", {"rope_parameters": {"rope_type": "default", "mrope_section": [2, 2]}}, "mrope_section"),
        ("llama", {"rope_parameters": {"full_attention": LINEAR}}, "full_attention"),
        ("gemma2", {"query_pre_attn_scalar": 0}, "query_pre_attn_scalar is 0"),
        ("gemma2", {"final_logit_softcapping": 0.0}, "final_logit_softcapping is 0.0"),
        ("gemma3_text", {"rope_parameters": {"full_attention": "linear"}}, "full_attention is 'linear'"),
        ("gemma3", {"text_config": "gemma3_text"}, "text_config is 'gemma3_text'"),
        ("qwen2", {"use_sliding_window": True, "max_window_layers": -1}, "max_window_layers is -1"),
        ("mistral", {"num_hidden_layers": 10**9}, "num_hidden_layers=1000000000"),
        ("t5", {"num_decoder_layers": 10**9}, "num_decoder_layers=1000000000"),
        ("t5", {"num_decoder_layers": 0}, "num_decoder_layers is 0"),
        ("t5", {"decoder_start_token_id": None}, "decoder_start_token_id is None"),
        ("t5", {"decoder_start_token_id": 10**6}, "decoder_start_token_id=1000000 is not supported"),
        ("t5", {"is_gated_act": "yes"}, "is_gated_act is 'yes'"),
        ("t5", {"scale_decoder_outputs": 1}, "scale_decoder_outputs is 1"),
        ("t5", {"relative_attention_num_buckets": 2}, "relative_attention_num_buckets=2"),
        ("t5", {"relative_attention_max_distance": 16}, "a max_distance above half of them"),
        ("t5", {"tie_encoder_decoder": True}, "tie_encoder_decoder=True"),
        ("t5", {"is_encoder_decoder": False}, "is_encoder_decoder=False"),
        ("t5", {"feed_forward_proj": "gated-tanh"}, "feed_forward_proj='tanh'"),
        ("t5", {"feed_forward_proj": "double-gelu"}, "feed_forward_proj='double-gelu'"),
        ("t5", {"scalable_attention": True}, "scalable_attention=True"),
        ("umt5", {}, "model_type 'umt5'"),
    ],
)
def test_names_the_option_it_does_not_follow(family: str, options: dict[str, Any], named: str) -> None:
    assert named in refusal(family, **options)


CONFIGS: dict[str, NetworkConfig] = {
    "llama": parse("llama", attention_bias=True, hidden_act="relu", rope_scaling=LINEAR),
    "mistral": parse("mistral", sliding_window=9),
    "qwen2": parse("qwen2", layer_types=["sliding_attention", "full_attention"] * 2, use_sliding_window=True),
    "qwen3": parse("qwen3", attention_bias=True, use_sliding_window=True, max_window_layers=1),
    "gemma": parse("gemma", tie_word_embeddings=False, hidden_act="silu"),
    "gemma2": parse("gemma2", query_pre_attn_scalar=224, attn_logit_softcapping=None, sliding_window=7),
    "gemma3_text": parse("gemma3_text", rope_scaling=LINEAR, rope_local_base_freq=77.0, final_logit_softcapping=3.0),
    "cohere": parse("cohere", logit_scale=0.3, attention_bias=True, head_dim=10),
    "t5, scaled": parse("t5", feed_forward_proj="gelu", num_decoder_layers=3),
    "t5, not scaled": parse("t5", feed_forward_proj="gated-silu", scale_decoder_outputs=False),
    "t5, untied": parse("t5", feed_forward_proj="gated-gelu", tie_word_embeddings=False),
    "mt5": parse("mt5", relative_attention_num_buckets=12, relative_attention_max_distance=50),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_writes_what_it_reads_back(name: str) -> None:
    config = CONFIGS[name].replace(dtype="bfloat16")
    content = json.loads(json.dumps(config_json(config, tokens={"eos_token_id": 1}, head=False, dtype="float32")))
    assert parse_config(content, "config.json", dtype="bfloat16") == config


@pytest.mark.parametrize("name", CONFIGS)
def test_transformers_reads_what_it_writes(name: str) -> None:
    """In its own words: what it makes of the keys is what the config says."""
    from transformers import AutoConfig

    config = CONFIGS[name]
    theirs = AutoConfig.for_model(**config_json(config, tokens={}, head=False, dtype="float32"))
    found = theirs.to_dict()
    if isinstance(config, EncoderDecoderConfig):
        assert (theirs.num_decoder_layers, theirs.is_gated_act) == (config.decoder_layers, config.gated)
        assert found.get("scale_decoder_outputs", False) == (config.logits_scale != 1.0) or config.family == "mt5"
        return
    kinds = found.get("layer_types") or ["full_attention"] * 4
    if config.family != "mistral":
        assert tuple(kind == "sliding_attention" for kind in kinds) == (config.sliding_layers or (False,) * 4)
    if any(config.sliding_layers):
        assert theirs.sliding_window == config.sliding_window
    rope = theirs.rope_parameters
    full = rope.get("full_attention", rope)
    assert full["rope_theta"] == config.rope_theta
    assert full["rope_type"] == (config.rope_scaling.kind if config.rope_scaling else "default")
    if config.local_rope_theta is not None:
        assert rope["sliding_attention"] == {"rope_type": "default", "rope_theta": config.local_rope_theta}


def test_a_network_that_a_family_has_no_words_for_is_not_written() -> None:
    config = CONFIGS["llama"].replace(parallel_block=True)
    with pytest.raises(UserError, match=r"config\.json of llama: has no words for a network with parallel_block=True"):
        config_json(config, tokens={}, head=False, dtype="float32")


def names(config: NetworkConfig) -> set[str]:
    return set(file_shapes(leaves(config)))


def test_the_same_name_is_another_place_in_gemma2_than_in_llama() -> None:
    def norms(config: NetworkConfig) -> dict[str, str]:
        return {
            leaf.path[1]: leaf.name(2).removeprefix("model.layers.2.")
            for leaf in leaves(config)
            if "norm" in leaf.path[1]
        }

    assert norms(CONFIGS["llama"])["mlp_norm"] == "post_attention_layernorm.weight"
    assert norms(CONFIGS["gemma2"]) == {
        "attention_norm": "input_layernorm.weight",
        "attention_post_norm": "post_attention_layernorm.weight",
        "mlp_norm": "pre_feedforward_layernorm.weight",
        "mlp_post_norm": "post_feedforward_layernorm.weight",
    }
    assert norms(CONFIGS["cohere"]) == {"attention_norm": "input_layernorm.weight"}
    assert "model.layers.3.self_attn.q_norm.weight" in names(CONFIGS["qwen3"]) & names(CONFIGS["gemma3_text"])


def test_puts_every_tensor_of_t5_where_the_tree_wants_it(tmp_path: Path) -> None:
    model = load(write_t5_folder(tmp_path))
    tensors = load_file(tmp_path / "model.safetensors")
    assert isinstance(model.config, EncoderDecoderConfig) and names(model.config) == set(tensors)
    decoder = jax.tree.map(lambda x: np.asarray(x[2]), model.params["decoder"]["blocks"])
    block = {name.removeprefix("decoder.block.2."): value for name, value in tensors.items()}
    # Row 6 + 2 of the query matrix is place 2 of head 1; column 6 + 2 of the output matrix likewise.
    cross = decoder["cross_attention"]
    assert np.array_equal(cross["q_proj"]["kernel"][:, 1, 2], block["layer.1.EncDecAttention.q.weight"][8])
    assert np.array_equal(cross["o_proj"]["kernel"][1, 2], block["layer.1.EncDecAttention.o.weight"][:, 8])
    assert np.array_equal(decoder["mlp"]["gate_proj"]["kernel"].T, block["layer.2.DenseReluDense.wi_0.weight"])
    assert np.array_equal(decoder["mlp_norm"]["scale"], block["layer.2.layer_norm.weight"])
    bias = tensors["encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"]
    assert np.array_equal(model.params["encoder"]["position_bias"]["table"], bias)
    assert np.array_equal(model.params["lm_head"]["kernel"].T, tensors["lm_head.weight"])
    lora = LoraSpec(2, 4.0, ("q_proj", "up_proj"), layers=1)
    adapter = set(file_shapes(adapter_leaves(model.config, lora)))
    assert "base_model.model.decoder.block.2.layer.1.EncDecAttention.q.lora_A.weight" in adapter
    assert "base_model.model.encoder.block.1.layer.1.DenseReluDense.wi_1.lora_B.weight" in adapter
    assert not any("block.0." in name for name in adapter)


def test_a_mesh_gets_the_same_t5_in_slices(tmp_path: Path) -> None:
    folder = write_t5_folder(tmp_path)
    whole, spread = load(folder), load(folder, mesh=make_mesh(data=2, fsdp=2, tensor=2))
    jax.tree.map(np.testing.assert_array_equal, whole.params, spread.params)
    kernel = spread.params["decoder"]["blocks"]["cross_attention"]["o_proj"]["kernel"]
    assert kernel.addressable_shards[0].data.size * 4 == kernel.size


@pytest.mark.parametrize(
    ("options", "head", "tied"),
    [
        ({"tie_word_embeddings": False}, "own", False),
        ({"tie_word_embeddings": False}, "equal", False),
        ({"tie_word_embeddings": False}, "none", True),
        # As transformers 5 writes an untied head.
        ({"tie_word_embeddings": True, "scale_decoder_outputs": False}, "own", False),
        ({"tie_word_embeddings": True}, "equal", True),
        ({"tie_word_embeddings": True}, "none", True),
    ],
)
def test_the_weights_of_t5_say_whether_its_head_is_tied(
    options: dict[str, Any], head: str, tied: bool, tmp_path: Path
) -> None:
    folder = write_t5_folder(tmp_path)
    change_json(folder / "config.json", **options)
    shared = load_file(folder / "model.safetensors")["shared.weight"]
    change_tensors(folder, **{"own": {}, "equal": {"lm_head__weight": shared}, "none": {"lm_head__weight": None}}[head])
    model = load(folder)
    assert (model.config.tie_embeddings, "lm_head" in model.params) == (tied, not tied)
    # Only T5 1.0 scales, which says that it ties.
    scaled = options["tie_word_embeddings"] and options.get("scale_decoder_outputs", True)
    assert model.config.logits_scale == (32**-0.5 if scaled else 1.0)


def test_takes_copies_of_t5s_embedding_only_if_they_are_the_same(tmp_path: Path) -> None:
    folder = write_t5_folder(tmp_path)
    shared = load_file(folder / "model.safetensors")["shared.weight"]
    unread = {
        "decoder__block__0__layer__1__EncDecAttention__relative_attention_bias__weight": np.ones((8, 4), np.float32)
    }
    change_tensors(folder, encoder__embed_tokens__weight=shared, decoder__embed_tokens__weight=shared, **unread)
    assert np.array_equal(load(folder).params["embedder"]["table"], shared)
    change_tensors(folder, shared__weight=None)
    assert np.array_equal(load(folder).params["embedder"]["table"], shared)
    change_tensors(folder, decoder__embed_tokens__weight=shared + 1)
    with pytest.raises(UserError, match=r"decoder\.embed_tokens\.weight differs from the embedding"):
        load(folder)


@pytest.mark.parametrize("prefix", ["language_model.model.", "model.language_model."])
def test_reads_the_text_model_of_a_multimodal_gemma3(prefix: str, tmp_path: Path) -> None:
    options = SIZES | {"head_dim": 8, "sliding_window": 5}
    config = parse("gemma3_text", head_dim=8, sliding_window=5)
    rng = np.random.default_rng(0)
    drawn = {name: rng.normal(size=shape).astype(np.float32) for name, shape in file_shapes(leaves(config)).items()}
    folder = write_folder(tmp_path / "base")
    stored = {name.replace("model.", prefix, 1): value for name, value in drawn.items()}
    tower = prefix.removesuffix("language_model.") if prefix.startswith("model.") else ""
    images = {f"{tower}vision_tower.x.weight": np.ones(3, np.float32), f"{tower}multi_modal_projector.y": np.ones(2)}
    save_file(stored | images, folder / "model.safetensors")
    write_json(folder / "config.json", {"model_type": "gemma3", "text_config": options, "vision_config": {"x": 1}})
    model = load(folder)
    assert isinstance(model.config, TransformerConfig) and model.config == config
    assert np.array_equal(model.params["embedder"]["table"], drawn["model.embed_tokens.weight"])
    # Saved in full it is a text model like any other.
    again = load(save(model, tmp_path / "saved"))
    jax.tree.map(np.testing.assert_array_equal, again.params, model.params)
    assert (again.config, again.metadata) == (config, {"generation_config": model.metadata["generation_config"]})
    change_tensors(folder, **{f"{prefix}norm.weight".replace(".", "__"): np.ones(3, np.float32)})
    with pytest.raises(UserError, match=rf"tensor {prefix}norm\.weight has shape \[3\]"):
        load(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"decoder__final_layer_norm__weight": None}, r"tensor decoder\.final_layer_norm\.weight is missing"),
        ({"shared__weight": np.ones((104, 31), np.float32)}, r"shared\.weight has shape \[104, 31\].* \[104, 32\]"),
        ({"classification_head__dense__weight": np.ones(3, np.float32)}, r"classification_head\S* belongs to no part"),
        ({"lm_head__weight": np.ones((104, 32), np.int8)}, r"lm_head\.weight has dtype I8"),
        ({"lm_head__weight": np.full((104, 32), np.inf, np.float32)}, r"lm_head\.weight holds NaN or infinity"),
    ],
)
def test_names_the_tensor_of_t5_that_is_wrong(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    change_tensors(write_t5_folder(tmp_path), **change)
    with pytest.raises(UserError, match=message) as error:
        load(tmp_path)
    assert "model.safetensors" in str(error.value)


def test_refuses_a_t5_tokenizer_with_more_tokens_than_the_embedding(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the tokenizer has 98 tokens, the embedding 90 rows"):
        load(write_t5_folder(tmp_path, vocab_size=90))
