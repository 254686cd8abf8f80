"""All model families by model_type. A new one is a file in this folder and a line here."""

from collections.abc import Mapping

from podium.models.config import NetworkConfig
from podium.models.families import cohere, gemma, gemma2, gemma3, llama, mistral, mt5, qwen2, qwen3, t5
from podium.models.families.base import Family
from podium.models.families.names import Names

FAMILIES: Mapping[str, Family] = {
    "llama": llama.FAMILY,
    "mistral": mistral.FAMILY,
    "qwen2": qwen2.FAMILY,
    "qwen3": qwen3.FAMILY,
    "gemma": gemma.FAMILY,
    "gemma2": gemma2.FAMILY,
    "gemma3_text": gemma3.FAMILY,
    # Read as its text model, which is a gemma3_text from then on.
    "gemma3": gemma3.MULTIMODAL,
    "cohere": cohere.FAMILY,
    "t5": t5.FAMILY,
    "mt5": mt5.FAMILY,
}


def names_of(config: NetworkConfig) -> Names:
    """Give the names that files hold a network's tensors under."""
    return FAMILIES[config.family].names(config)
