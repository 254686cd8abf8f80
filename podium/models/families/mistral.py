"""Mistral 7B: Llama, in which all layers see a window alone, or none does."""

from typing import Any

from podium.models.config import TransformerConfig
from podium.models.families.base import Family
from podium.models.families.decoder import DecoderNames, decoder_config, sliding_fields
from podium.models.families.llama import LLAMA_DEFAULTS, llama_fields, llama_json
from podium.models.families.options import Options
from podium.models.families.rope_options import read_rope


def _parse(options: Options, dtype: str) -> TransformerConfig:
    """All layers slide, or none: transformers passes over layer_types, so that they have to say the same."""
    window = options.optional_size("sliding_window")
    sliding = sliding_fields(options, window, lambda layer: True)
    if bool(window) != all(sliding.get("sliding_layers", (False,))):
        options.refuse("layer_types", "use a model with the same kind of attention in every layer")
    rope = read_rope(options, options.size("max_position_embeddings"))
    return decoder_config(options, rope, **llama_fields(options), **sliding, family="mistral", dtype=dtype)


def _write(config: TransformerConfig) -> dict[str, Any]:
    return llama_json(config) | {"sliding_window": config.sliding_window}


FAMILY = Family(
    parse=_parse,
    defaults=LLAMA_DEFAULTS | {"max_position_embeddings": 131072, "num_key_value_heads": 8, "sliding_window": 4096},
    write=_write,
    names=DecoderNames,
    architecture="MistralForCausalLM",
    classifier="MistralForSequenceClassification",
)
