"""config.json of Llama, Mistral, Qwen 2 and 2.5, and Qwen 3."""

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
from podium.models.weights.rope_options import read_rope

# What transformers assumes for a key that config.json leaves out, where no size is at stake.
_COMMON = {"hidden_act": "silu", "rms_norm_eps": 1e-6, "tie_word_embeddings": False, "rope_theta": 10000.0}
_QWEN = {"max_position_embeddings": 32768, "num_key_value_heads": 32, "sliding_window": 4096, "max_window_layers": 28}
DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "llama": _COMMON | {"max_position_embeddings": 2048},
    "mistral": _COMMON | {"max_position_embeddings": 131072, "num_key_value_heads": 8, "sliding_window": 4096},
    "qwen2": _COMMON | _QWEN,
    "qwen3": _COMMON | _QWEN | {"head_dim": 128},
}


def _common(options: Options) -> dict[str, Any]:
    return {"norm_eps": options.number("rms_norm_eps"), "activation": options.activation("hidden_act")}


def parse_llama(options: Options, dtype: str) -> TransformerConfig:
    options.must_be("pretraining_tp", 1, instead="write 1: it only changes the order of sums")
    options.passes("is_llama_config")
    full_attention_only(options)
    bias = options.flag("attention_bias")
    return decoder_config(
        options,
        read_rope(options, options.size("max_position_embeddings")),
        **_common(options),
        attention_bias=bias,
        output_bias=bias,
        mlp_bias=options.flag("mlp_bias"),
        family="llama",
        dtype=dtype,
    )


def parse_mistral(options: Options, dtype: str) -> TransformerConfig:
    """All layers slide, or none: transformers passes over layer_types, so that they have to say the same."""
    window = options.optional_size("sliding_window")
    sliding = sliding_fields(options, window, lambda layer: True)
    if bool(window) != all(sliding.get("sliding_layers", (False,))):
        options.refuse("layer_types", "use a model with the same kind of attention in every layer")
    rope = read_rope(options, options.size("max_position_embeddings"))
    return decoder_config(options, rope, **_common(options), **sliding, family="mistral", dtype=dtype)


def parse_qwen2(options: Options, dtype: str) -> TransformerConfig:
    rope = read_rope(options, options.size("max_position_embeddings"))
    fields = _common(options) | _qwen_window(options)
    return decoder_config(options, rope, **fields, attention_bias=True, family="qwen2", dtype=dtype)


def parse_qwen3(options: Options, dtype: str) -> TransformerConfig:
    rope = read_rope(options, options.size("max_position_embeddings"))
    bias = options.flag("attention_bias")
    fields = _common(options) | _qwen_window(options) | {"attention_bias": bias, "output_bias": bias}
    return decoder_config(options, rope, **fields, qk_norm=True, family="qwen3", dtype=dtype)


def _qwen_window(options: Options) -> dict[str, Any]:
    """The layers above max_window_layers slide, where use_sliding_window is true."""
    window, first = options.optional_size("sliding_window"), options.index("max_window_layers")
    window = window if options.flag("use_sliding_window") else None
    return sliding_fields(options, window, lambda layer: layer >= first)


def llama_json(config: TransformerConfig) -> dict[str, Any]:
    """Give the keys of any of these families."""
    content = decoder_json(config) | {
        "hidden_act": ACTIVATION_NAMES[config.activation],
        "rms_norm_eps": config.norm_eps,
    }
    if config.family == "llama":
        content |= {"attention_bias": config.attention_bias, "mlp_bias": config.mlp_bias}
    elif config.family == "mistral":
        content["sliding_window"] = config.sliding_window
    else:
        content |= {"use_sliding_window": any(config.sliding_layers), "layer_types": layer_types(config)}
        if config.sliding_window is not None:
            content |= {"sliding_window": config.sliding_window, "max_window_layers": _first_sliding(config)}
    if config.family == "qwen3":
        content["attention_bias"] = config.attention_bias
    return content


def _first_sliding(config: TransformerConfig) -> int:
    """What releases of transformers without layer_types go by."""
    return config.sliding_layers.index(True)
