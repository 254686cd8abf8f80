"""The networks of published models, built from their config.json without memory, have exactly as many parameters.

Where each count is from: the sum that the Hugging Face Hub shows for the safetensors files of the named repository; for
PaLM the paper. Seen to fail: with a bias too many, with the head of FLAN-T5 taken for tied.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest

from podium.models import TransformerConfig
from podium.models.families.config_json import config_json, parse_config
from podium.models.families.registry import FAMILIES
from podium.models.family import abstract_params
from support.packages import demand


def llama2(embed: int, mlp: int, layers: int, heads: int, kv_heads: int) -> dict[str, Any]:
    return {
        "model_type": "llama",
        "vocab_size": 32000,
        "hidden_size": embed,
        "intermediate_size": mlp,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "hidden_act": "silu",
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-5,
        "rope_scaling": None,
        "tie_word_embeddings": False,
        "pretraining_tp": 1,
        "torch_dtype": "float16",
    }


def flan_t5(embed: int, mlp: int, layers: int, heads: int) -> dict[str, Any]:
    return {
        "model_type": "t5",
        "vocab_size": 32128,
        "d_model": embed,
        "d_ff": mlp,
        "d_kv": 64,
        "num_layers": layers,
        "num_decoder_layers": layers,
        "num_heads": heads,
        "feed_forward_proj": "gated-gelu",
        "tie_word_embeddings": False,
        "is_encoder_decoder": True,
        "decoder_start_token_id": 0,
        "dropout_rate": 0.1,
        "layer_norm_epsilon": 1e-6,
        "relative_attention_max_distance": 128,
        "relative_attention_num_buckets": 32,
        "n_positions": 512,
    }


def gemma1(embed: int, mlp: int, layers: int, heads: int, kv_heads: int) -> dict[str, Any]:
    return {
        "model_type": "gemma",
        "vocab_size": 256000,
        "hidden_size": embed,
        "intermediate_size": mlp,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": 256,
        "hidden_act": "gelu",
        "hidden_activation": None,
        "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
    }


GEMMA2_27B = {
    "model_type": "gemma2",
    "vocab_size": 256000,
    "hidden_size": 4608,
    "intermediate_size": 36864,
    "num_hidden_layers": 46,
    "num_attention_heads": 32,
    "num_key_value_heads": 16,
    "head_dim": 128,
    "hidden_act": "gelu_pytorch_tanh",
    "hidden_activation": "gelu_pytorch_tanh",
    "max_position_embeddings": 8192,
    "query_pre_attn_scalar": 144,
    "sliding_window": 4096,
    "sliding_window_size": 4096,
    "attn_logit_softcapping": 50.0,
    "final_logit_softcapping": 30.0,
    "cache_implementation": "hybrid",
    "rope_theta": 10000.0,
}
# As published, without the sizes that transformers assumes.
GEMMA3_27B = {
    "model_type": "gemma3",
    "architectures": ["Gemma3ForConditionalGeneration"],
    "boi_token_index": 255999,
    "eoi_token_index": 256000,
    "image_token_index": 262144,
    "mm_tokens_per_image": 256,
    "text_config": {
        "head_dim": 128,
        "hidden_size": 5376,
        "intermediate_size": 21504,
        "model_type": "gemma3_text",
        "num_attention_heads": 32,
        "num_hidden_layers": 62,
        "num_key_value_heads": 16,
        "query_pre_attn_scalar": 168,
        "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
        "sliding_window": 1024,
    },
    "vision_config": {
        "hidden_size": 1152,
        "image_size": 896,
        "intermediate_size": 4304,
        "model_type": "siglip_vision_model",
        "num_attention_heads": 16,
        "num_hidden_layers": 27,
        "patch_size": 14,
    },
}
# Of gemma-3-27b-it's 27,432,406,640 the vision tower has 416,866,032 and the projector 6,194,304.
GEMMA3_TEXT = 27_432_406_640 - 416_866_032 - 6_194_304
LLAMA31_8B = {
    "model_type": "llama",
    "vocab_size": 128256,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "rope_scaling": {
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    },
}
QWEN3_8B = {
    "model_type": "qwen3",
    "vocab_size": 151936,
    "hidden_size": 4096,
    "intermediate_size": 12288,
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "max_position_embeddings": 40960,
    "max_window_layers": 36,
    "sliding_window": None,
    "use_sliding_window": False,
    "rope_theta": 1000000,
    "attention_bias": False,
    "tie_word_embeddings": False,
}
MISTRAL_7B = {
    "model_type": "mistral",
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 32768,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "sliding_window": 4096,
}

PUBLISHED: dict[str, tuple[dict[str, Any], int]] = {
    "meta-llama/Llama-2-7b-hf": (llama2(4096, 11008, 32, 32, 32), 6_738_415_616),
    "meta-llama/Llama-2-13b-hf": (llama2(5120, 13824, 40, 40, 40), 13_015_864_320),
    "meta-llama/Llama-2-70b-hf": (llama2(8192, 28672, 80, 64, 8), 68_976_648_192),
    "google/flan-t5-small": (flan_t5(512, 1024, 8, 6), 76_961_152),
    "google/flan-t5-base": (flan_t5(768, 2048, 12, 12), 247_577_856),
    "google/flan-t5-large": (flan_t5(1024, 2816, 24, 16), 783_150_080),
    "google/flan-t5-xl": (flan_t5(2048, 5120, 24, 32), 2_849_757_184),
    "google/flan-t5-xxl": (flan_t5(4096, 10240, 24, 64), 11_135_332_352),
    "google/gemma-2b": (gemma1(2048, 16384, 18, 8, 1), 2_506_172_416),
    "google/gemma-7b": (gemma1(3072, 24576, 28, 16, 16), 8_537_680_896),
    "google/gemma-2-27b": (GEMMA2_27B, 27_227_128_320),
    "google/gemma-3-27b-it": (GEMMA3_27B, GEMMA3_TEXT),
    "meta-llama/Llama-3.1-8B": (LLAMA31_8B, 8_030_261_248),
    "Qwen/Qwen3-8B": (QWEN3_8B, 8_190_735_360),
    "mistralai/Mistral-7B-v0.1": (MISTRAL_7B, 7_241_732_096),
}


def count(config: Any, keep: Callable[[Any], bool] = lambda leaf: True) -> int:
    leaves = jax.tree.leaves(abstract_params(config)[0])
    assert all(leaf.dtype == np.float32 for leaf in leaves)
    return sum(math.prod(leaf.shape) for leaf in leaves if keep(leaf))


@pytest.mark.parametrize("name", PUBLISHED)
def test_has_as_many_parameters_as_published(name: str) -> None:
    raw, published = PUBLISHED[name]
    assert count(parse_config(raw, name)) == published


@pytest.mark.parametrize("name", PUBLISHED)
def test_has_as_many_parameters_as_the_class_of_transformers(name: str) -> None:
    """Of a tied head T5's class has no second copy, but FLAN-T5's is one of its own: it is untied by the weights."""
    demand("torch")
    import torch
    import transformers

    raw, _ = PUBLISHED[name]
    raw = raw.get("text_config", raw)
    config = transformers.AutoConfig.for_model(**raw)
    with torch.device("meta"):
        theirs = getattr(transformers, FAMILIES[raw["model_type"]].architecture)(config)
    total = sum(value.numel() for value in theirs.parameters())
    if raw["model_type"] == "t5":
        total += theirs.lm_head.weight.numel()
    assert count(parse_config(raw, name)) == total


# Chowdhery et al. 2022 (arXiv 2204.02311), table 1: layers, heads, width, and parameters in billions.
PALM = {"8B": (32, 16, 4096, 8.63), "62B": (64, 32, 8192, 62.50), "540B": (118, 48, 18432, 540.35)}


@pytest.mark.parametrize("name", PALM)
def test_palm_is_a_configuration(name: str) -> None:
    """Heads of 256, one key and value head, MLPs of four times the width, a tied table of 256k tokens, no bias."""
    layers, heads, embed, billions = PALM[name]
    config = TransformerConfig(
        vocab_size=256_000,
        embed=embed,
        layers=layers,
        heads=heads,
        kv_heads=1,
        head_dim=256,
        mlp=4 * embed,
        max_position=2048,
        rope_theta=10000.0,
        norm_eps=1e-6,
        tie_embeddings=True,
        norm="layer",
        parallel_block=True,
        rope_interleaved=True,
        family="cohere",
    )
    # The paper's figures leave out the scales of norms: with them it would be 540.36.
    assert round(count(config, keep=lambda leaf: math.prod(leaf.shape) > 10**7) / 1e9, 2) == billions
    assert config_json(config, tokens={}, head=False, dtype="float32")["head_dim"] == 256
