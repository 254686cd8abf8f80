"""Gemma 1: GeGLU, scaled embeddings, and norms stored as their distance from 1. Its successors share its options."""

import math
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
from podium.ops.choices import Activation

GEMMA_DEFAULTS = {
    "head_dim": 256,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": True,
    "rope_theta": 10000.0,
    "max_position_embeddings": 8192,
}


def gemma_fields(options: Options, family: str, dtype: str, activation: str, ignored: str) -> dict[str, Any]:
    """Read what all Gemmas say alike; `activation` and `ignored` are the two keys that may name the activation.

    Releases of transformers differ in which of them they read: the other must agree.
    """
    result = _activation(options, activation)
    if options.get(ignored) is not None and _activation(options, ignored) != result:
        options.refuse(ignored, f"write what {activation} says, or remove it")
    if options.get("use_bidirectional_attention"):
        options.refuse("use_bidirectional_attention", "use a model in which no token sees later ones")
    bias = options.flag("attention_bias")
    return {
        "norm_eps": options.number("rms_norm_eps"),
        "activation": result,
        "attention_bias": bias,
        "output_bias": bias,
        "unit_offset": True,
        "embedding_scale": math.sqrt(options.size("hidden_size")),
        "family": family,
        "dtype": dtype,
    }


def _activation(options: Options, key: str) -> Activation:
    """Read an activation: the first releases of Gemma called the tanh form "gelu" in hidden_act."""
    if key == "hidden_act" and options.get(key) == "gelu":
        return "gelu_tanh"
    return options.activation(key)


def gemma_json(config: TransformerConfig) -> dict[str, Any]:
    """Give the keys of Gemma 1, which its successors have too."""
    activation = ACTIVATION_NAMES[config.activation]
    return decoder_json(config) | {
        "hidden_act": activation,
        "hidden_activation": activation,
        "rms_norm_eps": config.norm_eps,
        "attention_bias": config.attention_bias,
    }


def _parse(options: Options, dtype: str) -> TransformerConfig:
    full_attention_only(options)
    rope = read_rope(options, options.size("max_position_embeddings"))
    return decoder_config(options, rope, **gemma_fields(options, "gemma", dtype, "hidden_act", "hidden_activation"))


FAMILY = Family(
    parse=_parse,
    defaults=GEMMA_DEFAULTS | {"num_key_value_heads": 16, "hidden_act": "gelu_pytorch_tanh"},
    write=gemma_json,
    names=DecoderNames,
    architecture="GemmaForCausalLM",
    classifier="GemmaForSequenceClassification",
)
