"""Networks, and their weights in and out."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from podium.models.bundle import Model, Role
    from podium.models.config import EncoderDecoderConfig, ModelConfig, RopeScaling, TransformerConfig
    from podium.models.exporting import export
    from podium.models.importing import import_weights
    from podium.models.loading import load
    from podium.models.lora import LoraSpec
    from podium.models.saving import save

__all__ = [
    "EncoderDecoderConfig",
    "LoraSpec",
    "Model",
    "ModelConfig",
    "Role",
    "RopeScaling",
    "TransformerConfig",
    "export",
    "import_weights",
    "load",
    "save",
]

# Fetched on first use: who wants a config does not wait for JAX. No module is called like a function of this package,
# because importing a submodule would put it in the function's place.
_HOMES = {
    "EncoderDecoderConfig": "config",
    "LoraSpec": "lora",
    "Model": "bundle",
    "ModelConfig": "config",
    "Role": "bundle",
    "RopeScaling": "config",
    "TransformerConfig": "config",
    "export": "exporting",
    "import_weights": "importing",
    "load": "loading",
    "save": "saving",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
