"""Which implementation of the operations a network uses."""

import functools
import logging
from typing import Literal

import jax

from podium.ops.choices import Implementation

Platform = Literal["reference", "cpu", "gpu", "tpu"]

log = logging.getLogger(__name__)


def resolve(implementation: Implementation) -> Platform:
    """Name the variants that are used; a platform that has none gets the reference."""
    if implementation != "auto":
        return implementation
    backend = jax.default_backend()
    platforms: dict[str, Platform] = {"cpu": "cpu", "gpu": "gpu", "cuda": "gpu", "tpu": "tpu"}
    return platforms.get(backend, "reference")


@functools.lru_cache(maxsize=64)
def notice(platform: Platform, operation: str, reason: str) -> None:
    """Log once, while a program is traced, that an operation falls back to its reference."""
    log.warning("%s: the plain %s is used: %s", platform, operation, reason)
