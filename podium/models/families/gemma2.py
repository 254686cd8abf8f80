"""Gemma 2: norms behind attention and MLP too, soft caps, and a window in every second layer."""

from typing import Any

from podium.models.config import TransformerConfig
from podium.models.families.base import Family
from podium.models.families.decoder import DecoderNames, decoder_config, layer_types, sliding_fields
from podium.models.families.gemma import GEMMA_DEFAULTS, gemma_fields, gemma_json
from podium.models.families.options import Options
from podium.models.families.rope_options import read_rope

GEMMA2_DEFAULTS = GEMMA_DEFAULTS | {
    "hidden_activation": "gelu_pytorch_tanh",
    "num_key_value_heads": 4,
    "query_pre_attn_scalar": 256,
    "sliding_window": 4096,
}


def gemma2_fields(options: Options, family: str, dtype: str, pattern: int) -> dict[str, Any]:
    """Read what Gemma 2 and 3 say alike; of `pattern` layers the last sees all tokens."""
    window = options.optional_size("sliding_window")
    # The published Gemma 2 name their window twice.
    options.must_be("sliding_window_size", window, instead="write what sliding_window says, or remove it")
    scalar, head_dim = options.number("query_pre_attn_scalar"), options.size("head_dim")
    return {
        **gemma_fields(options, family, dtype, "hidden_activation", "hidden_act"),
        **sliding_fields(options, window, lambda layer: (layer + 1) % pattern != 0),
        "sandwich_norms": True,
        "query_scale": None if scalar == head_dim else scalar**-0.5,
        "logits_softcap": options.optional_number("final_logit_softcapping"),
    }


def gemma2_json(config: TransformerConfig) -> dict[str, Any]:
    """Give the keys that Gemma 2 and 3 share."""
    content = gemma_json(config) | {
        "query_pre_attn_scalar": round(config.score_scale**-2),
        "layer_types": layer_types(config),
        "final_logit_softcapping": config.logits_softcap,
        "attn_logit_softcapping": config.attention_softcap,
    }
    if config.sliding_window is not None:
        content["sliding_window"] = config.sliding_window
    return content


def _parse(options: Options, dtype: str) -> TransformerConfig:
    rope = read_rope(options, options.size("max_position_embeddings"))
    # Every second layer slides, the first one too.
    fields = gemma2_fields(options, "gemma2", dtype, 2)
    return decoder_config(options, rope, **fields, attention_softcap=options.optional_number("attn_logit_softcapping"))


FAMILY = Family(
    parse=_parse,
    defaults=GEMMA2_DEFAULTS | {"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0},
    write=gemma2_json,
    names=DecoderNames,
    architecture="Gemma2ForCausalLM",
    classifier="Gemma2ForSequenceClassification",
)
