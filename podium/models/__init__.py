"""Networks, and their weights in and out."""

from typing import TYPE_CHECKING

from podium import lazy

if TYPE_CHECKING:
    from podium.models.bundle import Model, Role
    from podium.models.config import EncoderDecoderConfig, NetworkConfig, RopeScaling, TransformerConfig
    from podium.models.exporting import export
    from podium.models.loading import load
    from podium.models.lora import LoraSpec
    from podium.models.saving import save

__all__ = [
    "EncoderDecoderConfig",
    "LoraSpec",
    "Model",
    "NetworkConfig",
    "Role",
    "RopeScaling",
    "TransformerConfig",
    "export",
    "load",
    "save",
]

# Who wants a config does not wait for JAX.
__getattr__ = lazy.attributes(
    __name__,
    {
        "EncoderDecoderConfig": "config",
        "LoraSpec": "lora",
        "Model": "bundle",
        "NetworkConfig": "config",
        "Role": "bundle",
        "RopeScaling": "config",
        "TransformerConfig": "config",
        "export": "exporting",
        "load": "loading",
        "save": "saving",
    },
)
