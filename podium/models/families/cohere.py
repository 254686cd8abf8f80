"""Cohere's Command R: the block of PaLM, one layer norm before attention and MLP side by side."""

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

_DEFAULTS = {
    "hidden_act": "silu",
    "layer_norm_eps": 1e-5,
    "logit_scale": 0.0625,
    "tie_word_embeddings": True,
    "rope_theta": 500000.0,
    "max_position_embeddings": 8192,
}


def _parse(options: Options, dtype: str) -> TransformerConfig:
    options.must_be("use_qk_norm", False, instead="use a model without a norm over queries and keys")
    options.must_be("pretraining_tp", 1, instead="write 1: it only changes the order of sums")
    full_attention_only(options)
    bias = options.flag("attention_bias")
    return decoder_config(
        options,
        read_rope(options, options.size("max_position_embeddings")),
        norm_eps=options.number("layer_norm_eps"),
        activation=options.activation("hidden_act"),
        attention_bias=bias,
        output_bias=bias,
        norm="layer",
        parallel_block=True,
        rope_interleaved=True,
        logits_scale=options.number("logit_scale"),
        family="cohere",
        dtype=dtype,
    )


def _write(config: TransformerConfig) -> dict[str, Any]:
    return decoder_json(config) | {
        "hidden_act": ACTIVATION_NAMES[config.activation],
        "layer_norm_eps": config.norm_eps,
        "attention_bias": config.attention_bias,
        "logit_scale": config.logits_scale,
        "use_qk_norm": False,
    }


# transformers has no classifier of this family.
FAMILY = Family(parse=_parse, defaults=_DEFAULTS, write=_write, names=DecoderNames, architecture="CohereForCausalLM")
