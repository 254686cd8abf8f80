"""Qwen 2 and 2.5: Llama with a bias on queries, keys and values, and a window in the upper layers where it is asked."""

from typing import Any

from podium.models.config import TransformerConfig
from podium.models.families.base import Family
from podium.models.families.decoder import DecoderNames, decoder_config, layer_types, sliding_fields
from podium.models.families.llama import LLAMA_DEFAULTS, llama_fields, llama_json
from podium.models.families.options import Options
from podium.models.families.rope_options import read_rope

QWEN_DEFAULTS = LLAMA_DEFAULTS | {
    "max_position_embeddings": 32768,
    "num_key_value_heads": 32,
    "sliding_window": 4096,
    "max_window_layers": 28,
}


def qwen_fields(options: Options) -> dict[str, Any]:
    """Read what Qwen 2 and 3 say alike; layers above max_window_layers slide, where use_sliding_window is true."""
    fields = llama_fields(options)
    window, first = options.optional_size("sliding_window"), options.index("max_window_layers")
    window = window if options.flag("use_sliding_window") else None
    return fields | sliding_fields(options, window, lambda layer: layer >= first)


def qwen_json(config: TransformerConfig) -> dict[str, Any]:
    """Give the keys that Qwen 2 and 3 share."""
    content = llama_json(config)
    content |= {"use_sliding_window": any(config.sliding_layers), "layer_types": layer_types(config)}
    if config.sliding_window is not None:
        # Releases of transformers without layer_types go by the first layer that slides.
        first = config.sliding_layers.index(True)
        content |= {"sliding_window": config.sliding_window, "max_window_layers": first}
    return content


def _parse(options: Options, dtype: str) -> TransformerConfig:
    rope = read_rope(options, options.size("max_position_embeddings"))
    return decoder_config(options, rope, **qwen_fields(options), attention_bias=True, family="qwen2", dtype=dtype)


FAMILY = Family(
    parse=_parse,
    defaults=QWEN_DEFAULTS,
    write=qwen_json,
    names=DecoderNames,
    architecture="Qwen2ForCausalLM",
    classifier="Qwen2ForSequenceClassification",
)
