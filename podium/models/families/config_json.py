"""Translate `config.json` to a network's config and back, for every family. What is not supported is refused."""

from collections.abc import Mapping
from typing import Any

from podium.errors import UserError
from podium.models.config import EncoderDecoderConfig, NetworkConfig
from podium.models.families.options import Options
from podium.models.families.registry import FAMILIES
from podium.models.families.rope_options import rope_json


def parse_config(raw: Mapping[str, Any], source: str, *, dtype: str = "float32") -> NetworkConfig:
    """Translate the content of config.json; `source` names it in errors. Raises UserError naming the option."""
    name = str(raw.get("model_type"))
    if name not in FAMILIES:
        raise UserError(f"{source}: model_type {name!r} is not supported; use a model of {', '.join(FAMILIES)}")
    family = FAMILIES[name]
    return family.parse(Options(raw, source, family.defaults), dtype)


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
        said, meant = (_comparable(name, result) for result in (vars(again).get(name), value))
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
