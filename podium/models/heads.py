"""Scalar heads: one number per hidden state, for reward scores and values. Always float32."""

import math

import jax
import jax.numpy as jnp

from podium.models.config import BlockConfig

Head = dict[str, jax.Array]


def init_head(config: BlockConfig, key: jax.Array | None) -> Head:
    """{"kernel": [embed], "bias": []}: normal with std 1/sqrt(embed + 1) (Ziegler et al. 2019); zero without a key."""
    if key is None:
        kernel = jnp.zeros((config.embed,), jnp.float32)
    else:
        kernel = jax.random.normal(key, (config.embed,), jnp.float32) / math.sqrt(config.embed + 1)
    return {"kernel": kernel, "bias": jnp.zeros((), jnp.float32)}


HEAD_AXES = {"kernel": ("norm",), "bias": ()}


def apply_head(head: Head, hidden: jax.Array) -> jax.Array:
    """Map hidden states [..., embed] to scalars [...], in float32."""
    return jnp.einsum("...d,d->...", hidden.astype(jnp.float32), head["kernel"]) + head["bias"]


def last_token(values: jax.Array, mask: jax.Array) -> jax.Array:
    """Pick from values [batch, time, ...] what stands at the last real token of each row."""
    time = mask.shape[1]
    last = time - 1 - jnp.argmax(jnp.flip(mask, axis=1), axis=1)
    return jnp.take_along_axis(values, last.reshape((-1,) + (1,) * (values.ndim - 1)), axis=1)[:, 0]
