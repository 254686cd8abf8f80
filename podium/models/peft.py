"""Adapters in the file format of the PEFT library: adapter_config.json and adapter_model.safetensors."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from podium.errors import UserError
from podium.models.lora import LoraSpec

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"

# Options of PEFT under which an adapter computes something else than (alpha / r) B A x.
_MUST_BE_OFF = ("use_rslora", "use_dora", "fan_in_fan_out", "rank_pattern", "alpha_pattern", "layers_pattern")


def adapter_config(lora: LoraSpec, layers: int, base: str, *, head: bool) -> dict[str, Any]:
    """Give the content of adapter_config.json for a model of so many layers; with a head it is a classifier's."""
    first = lora.first_layer(layers)
    return {
        "peft_type": "LORA",
        "task_type": "SEQ_CLS" if head else "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": lora.r,
        "lora_alpha": lora.alpha,
        "target_modules": list(lora.target_modules),
        "layers_to_transform": list(range(first, layers)) if first else None,
        "modules_to_save": ["score"] if head else None,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "use_rslora": False,
        "use_dora": False,
        "init_lora_weights": True,
        "inference_mode": True,
    }


def parse_adapter_config(raw: Mapping[str, Any], layers: int, source: Path) -> LoraSpec:
    """Read the options of an adapter for a model of so many layers; raises UserError for one we do not follow."""
    if raw.get("peft_type") != "LORA":
        raise UserError(f"{source}: peft_type {raw.get('peft_type')!r} is not supported; use a LORA adapter")
    for key in _MUST_BE_OFF:
        if raw.get(key):
            raise UserError(f"{source}: {key}={raw[key]!r} is not supported; use an adapter trained without it")
    if raw.get("bias", "none") != "none":
        raise UserError(f"{source}: bias={raw['bias']!r} is not supported; use an adapter with bias none")
    targets = raw.get("target_modules")
    rank, alpha = raw.get("r"), raw.get("lora_alpha")
    if not isinstance(targets, list) or not isinstance(rank, int) or not isinstance(alpha, int | float):
        raise UserError(f"{source}: needs r, lora_alpha and a list target_modules; write all three")
    chosen = raw.get("layers_to_transform")
    if chosen is not None and (not chosen or sorted(chosen) != list(range(layers - len(chosen), layers))):
        raise UserError(
            f"{source}: layers_to_transform={chosen} is not supported for {layers} layers; "
            "use an adapter on all layers or on the last ones"
        )
    return LoraSpec(rank, alpha, tuple(targets), len(chosen) if chosen is not None else None)
