"""Low-rank adapters (Hu et al. 2021, arXiv 2106.09685): W x + (alpha / r) B A x, with B zero at the start."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from podium.config import LoraConfig
from podium.errors import UserError
from podium.models.config import EncoderDecoderConfig, NetworkConfig

Tree = Any

ATTENTION_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj")
MLP_TARGETS = ("gate_proj", "up_proj", "down_proj")
TARGETS = ATTENTION_TARGETS + MLP_TARGETS


@dataclass(frozen=True)
class LoraSpec:
    """Rank, scale numerator and adapted projections of an adapter; hashable, static under jit.

    `layers` is how many of the last layers are adapted, None for all: the backward pass stops below them, and
    networks over one base share everything below.
    Raises UserError for a rank below 1, no target, or a target that is no projection of the block.
    """

    r: int
    alpha: float
    target_modules: tuple[str, ...] = TARGETS
    layers: int | None = None

    def __post_init__(self) -> None:
        unknown = [name for name in self.target_modules if name not in TARGETS]
        if self.r < 1 or unknown or not self.target_modules:
            raise UserError(
                f"lora: r={self.r}, target_modules={list(self.target_modules)}; "
                f"write r >= 1 and modules out of {', '.join(TARGETS)}"
            )

    @property
    def scale(self) -> float:
        return self.alpha / self.r

    def first_layer(self, total: int) -> int:
        """The first adapted layer of a model of `total`; raises UserError for more adapted layers than there are."""
        if self.layers is None:
            return 0
        if not 1 <= self.layers <= total:
            raise UserError(f"lora.layers: {self.layers} of a model of {total} layers; write 1 to {total}")
        return total - self.layers

    def rank(self, module: str) -> int:
        """The adapter's rank on a projection; 0 where it has none."""
        return self.r if module in self.target_modules else 0


def lora_spec(config: LoraConfig | None) -> LoraSpec | None:
    """Return the adapter that a configuration asks for; None where all weights are trained."""
    return None if config is None else LoraSpec(config.r, config.alpha, tuple(config.target_modules), config.layers)


def stack_depth(config: NetworkConfig, chosen: bool) -> int:
    """Count the layers of each stack; raises UserError where stacks differ and layers are chosen, as by number."""
    if not isinstance(config, EncoderDecoderConfig) or config.encoder_only:
        return config.layers
    if chosen and config.encoder_layers != config.decoder_layers:
        raise UserError(
            f"lora.layers: the encoder has {config.encoder_layers} layers, the decoder {config.decoder_layers}, and an "
            "adapter's file cannot choose layers of each; write null to adapt all"
        )
    return config.layers


def overlay(params: Tree, adapter: Tree | None) -> Tree:
    """Join two nested dicts leaf by leaf, the adapter's leaves beside the kernels they adapt; inputs are unchanged."""
    if adapter is None:
        return params
    joined = dict(params)
    for name, value in adapter.items():
        joined[name] = overlay(joined[name], value) if isinstance(value, Mapping) and name in joined else value
    return joined


def merge_adapter(params: Tree, adapter: Tree, lora: LoraSpec) -> Tree:
    """Fold an adapter into the stacked kernels: W + (alpha / r) A B, in float32."""
    if "lora_a" in adapter:
        kernel, a, b = params["kernel"], adapter["lora_a"], adapter["lora_b"]
        product = jax.vmap(lambda left, right: jnp.tensordot(left, right, axes=1))(a, b)
        added = kernel[kernel.shape[0] - a.shape[0] :] + lora.scale * product
        lower = kernel[: kernel.shape[0] - a.shape[0]]
        return {**params, "kernel": jnp.concatenate([lower, added]).astype(kernel.dtype)}
    return {
        name: merge_adapter(value, adapter[name], lora) if name in adapter else value for name, value in params.items()
    }
