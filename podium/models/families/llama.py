"""Llama 1 to 3, and what was built like it. Mistral and Qwen share its options."""

from typing import Any

from podium.models.config import TransformerConfig
from podium.models.families.base import Family
from podium.models.families.decoder import (
    ACTIVATION_NAMES,
    DecoderNames,
    decoder_config,
    decoder_json,
    full_attention_only,
)
from podium.models.families.options import Options
from podium.models.families.rope_options import read_rope

# Of keys where no size is at stake.
LLAMA_DEFAULTS = {"hidden_act": "silu", "rms_norm_eps": 1e-6, "tie_word_embeddings": False, "rope_theta": 10000.0}


def llama_fields(options: Options) -> dict[str, Any]:
    """Read what Llama and those built like it say alike, beside the sizes."""
    return {"norm_eps": options.number("rms_norm_eps"), "activation": options.activation("hidden_act")}


def llama_json(config: TransformerConfig) -> dict[str, Any]:
    """Give the keys that Llama and those built like it share."""
    return decoder_json(config) | {
        "hidden_act": ACTIVATION_NAMES[config.activation],
        "rms_norm_eps": config.norm_eps,
    }


def _parse(options: Options, dtype: str) -> TransformerConfig:
    options.must_be("pretraining_tp", 1, instead="write 1: it only changes the order of sums")
    options.passes("is_llama_config")
    full_attention_only(options)
    bias = options.flag("attention_bias")
    return decoder_config(
        options,
        read_rope(options, options.size("max_position_embeddings")),
        **llama_fields(options),
        attention_bias=bias,
        output_bias=bias,
        mlp_bias=options.flag("mlp_bias"),
        family="llama",
        dtype=dtype,
    )


def _write(config: TransformerConfig) -> dict[str, Any]:
    return llama_json(config) | {"attention_bias": config.attention_bias, "mlp_bias": config.mlp_bias}


FAMILY = Family(
    parse=_parse,
    defaults=LLAMA_DEFAULTS | {"max_position_embeddings": 2048},
    write=_write,
    names=DecoderNames,
    architecture="LlamaForCausalLM",
    classifier="LlamaForSequenceClassification",
)
