"""Translate `config.json` to a network's config and back, for every family. What is not supported is refused."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from podium.errors import UserError
from podium.models.config import EncoderDecoderConfig, NetworkConfig
from podium.models.weights import cohere_options, gemma_options, llama_options, t5_options
from podium.models.weights.cohere_options import cohere_json, parse_cohere
from podium.models.weights.gemma_options import (
    gemma_json,
    parse_gemma,
    parse_gemma2,
    parse_gemma3,
    parse_multimodal_gemma3,
)
from podium.models.weights.llama_options import llama_json, parse_llama, parse_mistral, parse_qwen2, parse_qwen3
from podium.models.weights.options import Options, read_json
from podium.models.weights.rope_options import rope_json
from podium.models.weights.t5_options import parse_mt5, parse_t5, t5_json

__all__ = ["FAMILIES", "auto_class", "classifier_of", "config_json", "parse_config", "read_json"]


class Family(NamedTuple):
    """How one model_type is read and written.

    architecture: transformers' class of the language model; classifier: that with one linear head in the language
    model's place, None where it has none.
    """

    parse: Callable[[Options, str], NetworkConfig]
    write: Callable[[Any], dict[str, Any]]
    architecture: str
    classifier: str | None


FAMILIES: Mapping[str, Family] = {
    "llama": Family(parse_llama, llama_json, "LlamaForCausalLM", "LlamaForSequenceClassification"),
    "mistral": Family(parse_mistral, llama_json, "MistralForCausalLM", "MistralForSequenceClassification"),
    "qwen2": Family(parse_qwen2, llama_json, "Qwen2ForCausalLM", "Qwen2ForSequenceClassification"),
    "qwen3": Family(parse_qwen3, llama_json, "Qwen3ForCausalLM", "Qwen3ForSequenceClassification"),
    "gemma": Family(parse_gemma, gemma_json, "GemmaForCausalLM", "GemmaForSequenceClassification"),
    "gemma2": Family(parse_gemma2, gemma_json, "Gemma2ForCausalLM", "Gemma2ForSequenceClassification"),
    "gemma3_text": Family(parse_gemma3, gemma_json, "Gemma3ForCausalLM", "Gemma3TextForSequenceClassification"),
    # Read as its text model, which is a gemma3_text from then on.
    "gemma3": Family(parse_multimodal_gemma3, gemma_json, "Gemma3ForConditionalGeneration", None),
    "cohere": Family(parse_cohere, cohere_json, "CohereForCausalLM", None),
    "t5": Family(parse_t5, t5_json, "T5ForConditionalGeneration", None),
    "mt5": Family(parse_mt5, t5_json, "MT5ForConditionalGeneration", None),
}
_DEFAULTS = {**llama_options.DEFAULTS, **gemma_options.DEFAULTS, **cohere_options.DEFAULTS, **t5_options.DEFAULTS}


def parse_config(raw: Mapping[str, Any], source: str, *, dtype: str = "float32") -> NetworkConfig:
    """Translate the content of config.json; `source` names it in errors. Raises UserError naming the option."""
    family = str(raw.get("model_type"))
    if family not in FAMILIES:
        raise UserError(f"{source}: model_type {family!r} is not supported; use a model of {', '.join(FAMILIES)}")
    return FAMILIES[family].parse(Options(raw, source, _DEFAULTS[family]), dtype)


def config_json(config: NetworkConfig, *, tokens: Mapping[str, Any], head: bool, dtype: str) -> dict[str, Any]:
    """Give the content of config.json, in the spelling that old and new transformers read.

    tokens: bos_token_id, eos_token_id, pad_token_id; head: a one-label sequence classifier instead of a language model.
    Raises UserError for a network that the config.json of its family has no words for.
    """
    family = FAMILIES[config.family]
    architecture = classifier_of(config) if head else family.architecture
    content = {"architectures": [architecture], "model_type": config.family, **family.write(config)}
    _check(config, content)
    content |= {"torch_dtype": dtype, **tokens}
    if head:
        content |= {"num_labels": 1, "id2label": {"0": "reward"}, "label2id": {"reward": 0}}
    return content


def _check(config: NetworkConfig, content: Mapping[str, Any]) -> None:
    again = parse_config(content, "config.json", dtype=config.dtype)
    for name, value in vars(config).items():
        said, meant = (_comparable(name, found) for found in (vars(again).get(name), value))
        # Of the encoder alone is said elsewhere.
        if said != meant and name != "encoder_only":
            raise UserError(f"config.json of {config.family}: has no words for a network with {name}={value!r}")


def _comparable(name: str, value: Any) -> Any:
    """Of rope options those that their kind reads."""
    return rope_json(value) if name == "rope_scaling" else value


def classifier_of(config: NetworkConfig) -> str:
    """Name transformers' class of a reward model of this family; raises UserError where there is none."""
    name = FAMILIES[config.family].classifier
    if name is None:
        raise UserError(
            f"export: transformers has no class for a reward model of family {config.family}; "
            "use its folder as it is, Podium reads it"
        )
    return name


def auto_class(config: NetworkConfig) -> str:
    """Name the class of transformers that loads a language model of this kind."""
    return "AutoModelForSeq2SeqLM" if isinstance(config, EncoderDecoderConfig) else "AutoModelForCausalLM"
