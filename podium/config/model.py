"""The base model and the low-rank adapters trained on it."""

from typing import Literal, Self

from pydantic import Field, model_validator

from podium.config.base import Positive, PositiveFloat, Section, fail
from podium.config.places import Location

Dtype = Literal["float32", "bfloat16"]
Projection = Literal["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
ALL_PROJECTIONS: tuple[Projection, ...] = (
    "q_proj",
    "k_proj",
    "v_proj",
    "o_proj",
    "gate_proj",
    "up_proj",
    "down_proj",
)
# What a model folder is read from. Never a pickle.
TOKENIZER_FILES = ("*.json", "*.jinja", "tokenizer.model", "*.txt")
MODEL_FILES = (*TOKENIZER_FILES, "*.safetensors")


class ModelConfig(Section):
    """A pretrained model."""

    name_or_path: Location = Field(
        description="Folder with config.json, safetensors and a tokenizer, a gs:// or s3:// URI of one, "
        "or the name of a Hugging Face repository in the local cache.",
    )
    revision: str | None = Field(None, description="Commit of the Hugging Face repository; null takes the default.")
    dtype: Dtype = Field(
        "float32",
        description="Type that products are computed in and frozen weights are stored in; trained weights, losses and "
        "every reduction stay float32.",
    )


class LoraConfig(Section):
    """Low-rank adapters; the base weights stay frozen."""

    r: Positive = Field(16, description="Rank of each adapter.")
    alpha: PositiveFloat = Field(32.0, description="The adapter's output is scaled by alpha / r.")
    target_modules: tuple[Projection, ...] = Field(ALL_PROJECTIONS, description="Projections that get an adapter.")
    layers: Positive | None = Field(
        None,
        description="How many of the last layers get adapters; null: all. The backward pass stops below them, and "
        "policy, reference, critic and reward model compute the layers below once for all.",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.target_modules:
            fail("target_modules", "name at least one projection, or write lora: null to train all weights")
        if len(set(self.target_modules)) != len(self.target_modules):
            fail("target_modules", "a projection is named twice; name each once")
        return self
