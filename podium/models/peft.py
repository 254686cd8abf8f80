"""Adapters in the file format of the PEFT library: adapter_config.json and adapter_model.safetensors."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from podium.errors import UserError
from podium.models.config import EncoderDecoderConfig, NetworkConfig
from podium.models.families.options import Options
from podium.models.families.registry import names_of
from podium.models.lora import LoraSpec, stack_depth

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"

# Options of PEFT under which an adapter computes something else than (alpha / r) B A x.
_MUST_BE_OFF = (
    *("use_rslora", "use_dora", "use_qalora", "use_bdlora", "lora_bias", "fan_in_fan_out"),
    *("rank_pattern", "alpha_pattern", "exclude_modules", "target_parameters", "trainable_token_indices"),
    *("layer_replication", "alora_invocation_tokens", "arrow_config", "kasa_config", "monteclora_config"),
)


def adapter_config(lora: LoraSpec, config: NetworkConfig, base: str, *, head: bool) -> dict[str, Any]:
    """Give the content of adapter_config.json; with a head it is a classifier's.

    Raises UserError for a choice of layers that the format has no words for.
    """
    layers, names = stack_depth(config, lora.layers is not None), names_of(config)
    modules = names.modules()
    first = lora.first_layer(layers)
    language = "SEQ_2_SEQ_LM" if isinstance(config, EncoderDecoderConfig) else "CAUSAL_LM"
    return {
        "peft_type": "LORA",
        "task_type": "SEQ_CLS" if head else language,
        "base_model_name_or_path": base,
        "r": lora.r,
        "lora_alpha": lora.alpha,
        "target_modules": [modules[name] for name in lora.target_modules if name in modules],
        "layers_to_transform": list(range(first, layers)) if first else None,
        "layers_pattern": names.layers_pattern if first else None,
        "modules_to_save": ["score"] if head else None,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "use_rslora": False,
        "use_dora": False,
        "init_lora_weights": True,
        "inference_mode": True,
    }


def parse_adapter_config(raw: Mapping[str, Any], config: NetworkConfig, source: Path) -> LoraSpec:
    """Read the options of an adapter for a model; raises UserError for one we do not follow."""
    if raw.get("peft_type") != "LORA":
        raise UserError(f"{source}: peft_type {raw.get('peft_type')!r} is not supported; use a LORA adapter")
    for key in _MUST_BE_OFF:
        if raw.get(key):
            raise UserError(f"{source}: {key}={raw[key]!r} is not supported; use an adapter trained without it")
    if raw.get("bias", "none") != "none":
        raise UserError(f"{source}: bias={raw['bias']!r} is not supported; use an adapter with bias none")
    names = names_of(config)
    if raw.get("layers_pattern") not in (None, [], names.layers_pattern, [names.layers_pattern]):
        raise UserError(f"{source}: layers_pattern={raw['layers_pattern']!r} is not supported; remove it")
    options = Options(raw, str(source), {})
    rank, alpha, targets = options.size("r"), options.number("lora_alpha"), options.words("target_modules")
    if not targets:
        raise UserError(f"{source}: target_modules is {targets!r}; write a list of modules")
    ours = {theirs: name for name, theirs in names.modules().items()}
    unknown = [name for name in targets if name not in ours]
    if unknown:
        raise UserError(f"{source}: target_modules has {unknown[0]}; write modules out of {', '.join(ours)}")
    chosen = raw.get("layers_to_transform")
    layers = stack_depth(config, chosen is not None)
    if chosen is not None and not _are_last(chosen, layers):
        raise UserError(
            f"{source}: layers_to_transform={chosen} is not supported for {layers} layers; "
            "use an adapter on all layers or on the last ones"
        )
    return LoraSpec(rank, alpha, tuple(ours[name] for name in targets), len(chosen) if chosen is not None else None)


def _are_last(chosen: Any, layers: int) -> bool:
    """Say whether it is a list of the last of so many layers, in any order."""
    if not isinstance(chosen, list) or not chosen or any(type(layer) is not int for layer in chosen):
        return False
    return sorted(chosen) == list(range(layers - len(chosen), layers))
