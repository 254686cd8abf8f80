"""What the backward pass keeps of each layer, and what it computes again (Chen et al. 2016, arXiv 1604.06174)."""

from collections.abc import Callable
from typing import Any

import jax

from podium.config.training import Remat
from podium.models.config import NetworkConfig
from podium.ops.choices import Implementation, Kept
from podium.ops.platform import resolve
from podium.ops.types import RESIDUALS


def policy(remat: Remat, implementation: Implementation) -> Kept:
    """Decide what `auto` means: a CPU has memory to spare and little speed, an accelerator the other way round."""
    if remat != "auto":
        return remat
    return "none" if resolve(implementation) in ("cpu", "reference") else "full"


def training_config(config: NetworkConfig, remat: Remat) -> NetworkConfig:
    """Give the configuration of a network that is trained."""
    return config.replace(remat=policy(remat, config.implementation))


def rematerialised(layer: Callable[..., Any], remat: Kept, *, looped: bool) -> Callable[..., Any]:
    """Let the backward pass of a layer keep what the policy says.

    `looped`: it is the body of a loop; elsewhere XLA would find that what is computed again was computed before.

    Products with a batch dimension are those of attention, of size time x time, and are never kept.
    """
    if remat == "none":
        return layer
    policies = jax.checkpoint_policies
    saved = policies.nothing_saveable
    if remat == "dots":
        saved = policies.save_from_both_policies(
            policies.dots_with_no_batch_dims_saveable, policies.save_only_these_names(RESIDUALS)
        )
    return jax.checkpoint(layer, policy=saved, prevent_cse=not looped)
