"""Qwen 3: a norm over each query and key head in place of Qwen 2's biases."""

from typing import Any

from podium.models.config import TransformerConfig
from podium.models.families.base import Family
from podium.models.families.decoder import DecoderNames, decoder_config
from podium.models.families.options import Options
from podium.models.families.qwen2 import QWEN_DEFAULTS, qwen_fields, qwen_json
from podium.models.families.rope_options import read_rope


def _parse(options: Options, dtype: str) -> TransformerConfig:
    rope = read_rope(options, options.size("max_position_embeddings"))
    bias = options.flag("attention_bias")
    fields = qwen_fields(options) | {"attention_bias": bias, "output_bias": bias}
    return decoder_config(options, rope, **fields, qk_norm=True, family="qwen3", dtype=dtype)


def _write(config: TransformerConfig) -> dict[str, Any]:
    return qwen_json(config) | {"attention_bias": config.attention_bias}


FAMILY = Family(
    parse=_parse,
    defaults=QWEN_DEFAULTS | {"head_dim": 128},
    write=_write,
    names=DecoderNames,
    architecture="Qwen3ForCausalLM",
    classifier="Qwen3ForSequenceClassification",
)
