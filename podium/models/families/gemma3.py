"""Gemma 3: query and key norms, five sliding layers to one, two thetas. Of one with images the text model is read."""

import re
from typing import Any

from podium.models.config import TransformerConfig
from podium.models.families.base import Family
from podium.models.families.decoder import DecoderNames, decoder_config
from podium.models.families.gemma2 import GEMMA2_DEFAULTS, gemma2_fields, gemma2_json
from podium.models.families.names import LM_HEAD
from podium.models.families.options import Options
from podium.models.families.rope_options import read_layered_rope

# The published Gemma 3 leave out sizes as well.
_DEFAULTS = GEMMA2_DEFAULTS | {
    "vocab_size": 262208,
    "num_attention_heads": 8,
    "max_position_embeddings": 131072,
    "rope_theta": 1e6,
    "rope_local_base_freq": 1e4,
    "sliding_window_pattern": 6,
}
# Of images, which a text model never meets.
_IMAGE_OPTIONS = ("vision_config", "mm_tokens_per_image", "boi_token_index", "eoi_token_index", "image_token_index")
_IMAGE_TENSORS = re.compile(r"(model\.)?(vision_tower|multi_modal_projector)\..*")


class _Names(DecoderNames):
    """The names of the text model alone, and within one with images as published and as newer transformers write it."""

    def aliases(self, name: str) -> tuple[str, ...]:
        if name == LM_HEAD:
            return name, f"language_model.{name}"
        return name, f"language_model.{name}", name.replace("model.", "model.language_model.", 1)

    def is_left_out(self, name: str) -> bool:
        return super().is_left_out(name) or _IMAGE_TENSORS.fullmatch(name) is not None


def _parse(options: Options, dtype: str) -> TransformerConfig:
    """Read the text model. Of what caps scores, transformers makes no use here."""
    if options.get("attn_logit_softcapping"):
        options.refuse("attn_logit_softcapping", "remove it: Gemma 3 does not cap attention scores")
    full, sliding = read_layered_rope(options, options.size("max_position_embeddings"))
    fields = gemma2_fields(options, "gemma3_text", dtype, options.size("sliding_window_pattern"))
    return decoder_config(options, full, **fields, qk_norm=True, local_rope_theta=sliding.theta)


def _parse_multimodal(options: Options, dtype: str) -> TransformerConfig:
    """Read the text model. Whether its head is tied is said outside of it."""
    text = options.mapping("text_config")
    tied = options.flag("tie_word_embeddings")
    options.passes(*_IMAGE_OPTIONS)
    options.finish()
    inner = Options(text | {"tie_word_embeddings": tied}, f"{options.source}: text_config", _DEFAULTS)
    inner.must_be("model_type", "gemma3_text", instead="use a model of gemma3_text")
    inner.must_be("final_logit_softcapping", instead="remove it: with images transformers does not cap logits")
    return _parse(inner, dtype)


def _write(config: TransformerConfig) -> dict[str, Any]:
    return gemma2_json(config) | {"rope_local_base_freq": config.local_rope_theta}


FAMILY = Family(
    parse=_parse,
    defaults=_DEFAULTS,
    write=_write,
    names=_Names,
    architecture="Gemma3ForCausalLM",
    classifier="Gemma3TextForSequenceClassification",
)
MULTIMODAL = Family(
    parse=_parse_multimodal,
    defaults={"tie_word_embeddings": True},
    write=_write,
    names=_Names,
    architecture="Gemma3ForConditionalGeneration",
)
