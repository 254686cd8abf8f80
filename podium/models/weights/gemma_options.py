"""config.json of Gemma 1, 2 and 3; of the multimodal Gemma 3 the text model."""

import math
from collections.abc import Mapping
from typing import Any

from podium.models.config import TransformerConfig
from podium.models.weights.decoder_options import (
    ACTIVATION_NAMES,
    decoder_config,
    decoder_json,
    full_attention_only,
    layer_types,
    sliding_fields,
)
from podium.models.weights.options import Options
from podium.models.weights.rope_options import read_layered_rope, read_rope
from podium.ops.activation import Activation

# What transformers assumes for a key that config.json leaves out. The published Gemma 3 leave out sizes as well.
_COMMON = {
    "head_dim": 256,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": True,
    "rope_theta": 10000.0,
    "max_position_embeddings": 8192,
}
_LATER = {
    "hidden_activation": "gelu_pytorch_tanh",
    "num_key_value_heads": 4,
    "query_pre_attn_scalar": 256,
    "sliding_window": 4096,
}
_GEMMA3 = {
    "vocab_size": 262208,
    "num_attention_heads": 8,
    "max_position_embeddings": 131072,
    "rope_theta": 1e6,
    "rope_local_base_freq": 1e4,
    "sliding_window_pattern": 6,
}
DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "gemma": _COMMON | {"num_key_value_heads": 16, "hidden_act": "gelu_pytorch_tanh"},
    "gemma2": _COMMON | _LATER | {"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0},
    "gemma3_text": _COMMON | _LATER | _GEMMA3,
    "gemma3": {"tie_word_embeddings": True},
}
# Of images, which a text model never meets.
_IMAGES = ("vision_config", "mm_tokens_per_image", "boi_token_index", "eoi_token_index", "image_token_index")


def _common(options: Options, family: str, dtype: str, activation: str, ignored: str) -> dict[str, Any]:
    """Fields of all three. Releases of transformers differ in which key names the activation: the other must agree."""
    found = _activation(options, activation)
    if options.get(ignored) is not None and _activation(options, ignored) != found:
        options.refuse(ignored, f"write what {activation} says, or remove it")
    if options.get("use_bidirectional_attention"):
        options.refuse("use_bidirectional_attention", "use a model in which no token sees later ones")
    bias = options.flag("attention_bias")
    return {
        "norm_eps": options.number("rms_norm_eps"),
        "activation": found,
        "attention_bias": bias,
        "output_bias": bias,
        "unit_offset": True,
        "embedding_scale": math.sqrt(options.size("hidden_size")),
        "family": family,
        "dtype": dtype,
    }


def _activation(options: Options, key: str) -> Activation:
    """The first releases of Gemma called the tanh form "gelu" in hidden_act."""
    if key == "hidden_act" and options.get(key) == "gelu":
        return "gelu_tanh"
    return options.activation(key)


def parse_gemma(options: Options, dtype: str) -> TransformerConfig:
    full_attention_only(options)
    rope = read_rope(options, options.size("max_position_embeddings"))
    return decoder_config(options, rope, **_common(options, "gemma", dtype, "hidden_act", "hidden_activation"))


def parse_gemma2(options: Options, dtype: str) -> TransformerConfig:
    """Every second layer slides, the first one too."""
    rope = read_rope(options, options.size("max_position_embeddings"))
    fields = _later(options, "gemma2", dtype, 2)
    return decoder_config(options, rope, **fields, attention_softcap=options.optional_number("attn_logit_softcapping"))


def parse_gemma3(options: Options, dtype: str) -> TransformerConfig:
    """Five of six layers slide; they have a theta of their own. Of what caps scores, transformers makes no use here."""
    if options.get("attn_logit_softcapping"):
        options.refuse("attn_logit_softcapping", "remove it: Gemma 3 does not cap attention scores")
    full, sliding = read_layered_rope(options, options.size("max_position_embeddings"))
    fields = _later(options, "gemma3_text", dtype, options.size("sliding_window_pattern"))
    return decoder_config(options, full, **fields, qk_norm=True, local_rope_theta=sliding.theta)


def parse_multimodal_gemma3(options: Options, dtype: str) -> TransformerConfig:
    """Read the text model. Whether its head is tied is said outside of it."""
    text = options.mapping("text_config")
    tied = options.flag("tie_word_embeddings")
    options.passes(*_IMAGES)
    options.finish()
    inner = Options(text | {"tie_word_embeddings": tied}, f"{options.source}: text_config", DEFAULTS["gemma3_text"])
    inner.must_be("model_type", "gemma3_text", instead="use a model of gemma3_text")
    inner.must_be("final_logit_softcapping", instead="remove it: with images transformers does not cap logits")
    return parse_gemma3(inner, dtype)


def _later(options: Options, family: str, dtype: str, pattern: int) -> dict[str, Any]:
    window = options.optional_size("sliding_window")
    # The published Gemma 2 name their window twice.
    options.must_be("sliding_window_size", window, instead="write what sliding_window says, or remove it")
    scalar, head_dim = options.number("query_pre_attn_scalar"), options.size("head_dim")
    return {
        **_common(options, family, dtype, "hidden_activation", "hidden_act"),
        **sliding_fields(options, window, lambda layer: (layer + 1) % pattern != 0),
        "sandwich_norms": True,
        "query_scale": None if scalar == head_dim else scalar**-0.5,
        "logits_softcap": options.optional_number("final_logit_softcapping"),
    }


def gemma_json(config: TransformerConfig) -> dict[str, Any]:
    """Give the keys of any Gemma."""
    activation = ACTIVATION_NAMES[config.activation]
    content = decoder_json(config) | {
        "hidden_act": activation,
        "hidden_activation": activation,
        "rms_norm_eps": config.norm_eps,
        "attention_bias": config.attention_bias,
    }
    if config.family == "gemma":
        return content
    content |= {
        "query_pre_attn_scalar": round(config.score_scale**-2),
        "layer_types": layer_types(config),
        "final_logit_softcapping": config.logits_softcap,
        "attn_logit_softcapping": config.attention_softcap,
    }
    if config.sliding_window is not None:
        content["sliding_window"] = config.sliding_window
    if config.family == "gemma3_text":
        content["rope_local_base_freq"] = config.local_rope_theta
    return content
