"""Rotary position embedding (Su et al. 2021, RoFormer, equation 34).

Halves of a head are rotated against each other, as in Llama's released weights, or neighbouring dimensions, as in the
paper.

Scaling variants, as Hugging Face names and defines them:
- linear: every frequency divided by the factor (Chen et al. 2023, arXiv 2306.15595);
- dynamic: beyond max_position the base grows with the length (NTK-aware interpolation);
- yarn: high frequencies kept, low ones divided, a ramp between; tables scaled by 0.1 ln(factor) + 1
  (Peng et al. 2023, arXiv 2309.00071);
- llama3: long wavelengths divided, short ones kept, a ramp between (Llama 3.1's released code).
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from podium.models.config import RopeScaling, TransformerConfig


def rope_tables(config: TransformerConfig, positions: jax.Array, *, local: bool = False) -> tuple[jax.Array, jax.Array]:
    """Cosine and sine, float32 [batch, time, head_dim / 2], of integer positions [batch, time].

    local: those of sliding layers, where they have a theta of their own.
    """
    theta, scaling = config.rope_theta, config.rope_scaling
    if local and config.local_rope_theta is not None:
        theta, scaling = config.local_rope_theta, None
    if scaling is not None and scaling.kind == "dynamic":
        frequencies, factor = _dynamic_frequencies(config, scaling, positions), 1.0
    else:
        table, factor = inverse_frequencies(config.head_dim, theta, config.max_position, scaling)
        frequencies = jnp.asarray(table)[None, None, :]
    angles = positions.astype(jnp.float32)[:, :, None] * frequencies
    return jnp.cos(angles) * factor, jnp.sin(angles) * factor


def rotate(x: jax.Array, cos: jax.Array, sin: jax.Array, *, interleaved: bool = False) -> jax.Array:
    """Rotate x [batch, time, heads, head_dim] by the tables; computed in float32, returned in x's dtype.

    interleaved: the pairs are neighbouring dimensions, in place of the two halves.
    """
    wide = x.astype(jnp.float32)
    cos, sin = cos[:, :, None, :], sin[:, :, None, :]
    if interleaved:
        first, second = wide[..., 0::2], wide[..., 1::2]
        turned = jnp.stack([first * cos - second * sin, second * cos + first * sin], axis=-1)
        return turned.reshape(x.shape).astype(x.dtype)
    first, second = jnp.split(wide, 2, axis=-1)
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1).astype(x.dtype)


def inverse_frequencies(
    head_dim: int, theta: float, max_position: int, scaling: RopeScaling | None
) -> tuple[np.ndarray, float]:
    """Angle per position, float32 [head_dim / 2], and what cosine and sine are multiplied by.

    Worked out in float64 and rounded once: an error here is multiplied by the position. "dynamic" gives what holds
    up to max_position.
    """
    plain = 1.0 / theta ** (np.arange(0, head_dim, 2) / head_dim)
    factor = 1.0
    if scaling is None or scaling.kind == "dynamic":
        scaled = plain
    elif scaling.kind == "linear":
        scaled = plain / scaling.factor
    elif scaling.kind == "llama3":
        scaled = _llama3(plain, scaling)
    elif scaling.kind == "yarn":
        scaled, factor = _yarn(plain, head_dim, theta, scaling), _yarn_factor(scaling)
    else:
        raise ValueError(f"rope scaling {scaling.kind!r} is not known")
    return scaled.astype(np.float32), factor


def _dynamic_frequencies(config: TransformerConfig, scaling: RopeScaling, positions: jax.Array) -> jax.Array:
    """Frequencies [batch, 1, head_dim / 2] for each row's own length, its last position + 1.

    Transformers takes the longest row of the batch; here a row does not depend on its neighbours. A decode step
    rotates by the length so far and leaves cached keys as they are: past max_position it differs, by definition,
    from a forward pass over the whole text.
    """
    length = jnp.maximum(jnp.max(positions, axis=1) + 1, config.max_position).astype(jnp.float32)
    stretch = scaling.factor * length / config.max_position - (scaling.factor - 1)
    base = config.rope_theta * stretch ** (config.head_dim / (config.head_dim - 2))
    exponents = jnp.arange(0, config.head_dim, 2, dtype=jnp.float32) / config.head_dim
    return 1.0 / base[:, None, None] ** exponents[None, None, :]


def _llama3(plain: np.ndarray, scaling: RopeScaling) -> np.ndarray:
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    turns = scaling.original_max_position * plain / (2 * math.pi)  # full rotations within the trained context
    kept = np.clip((turns - low) / (high - low), 0.0, 1.0)
    return plain * (kept + (1.0 - kept) / scaling.factor)


def _yarn(plain: np.ndarray, head_dim: int, theta: float, scaling: RopeScaling) -> np.ndarray:
    def dimension(rotations: float) -> float:
        """The (fractional) pair that makes this many rotations within the trained context."""
        return head_dim * math.log(scaling.original_max_position / (rotations * 2 * math.pi)) / (2 * math.log(theta))

    low, high = dimension(scaling.beta_fast), dimension(scaling.beta_slow)
    if scaling.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, head_dim - 1)
    width = high - low if high != low else 0.001
    divided = np.clip((np.arange(head_dim // 2) - low) / width, 0.0, 1.0)
    return plain * (divided / scaling.factor + 1.0 - divided)


def _yarn_factor(scaling: RopeScaling) -> float:
    def grow(mscale: float) -> float:
        return 0.1 * mscale * math.log(scaling.factor) + 1.0 if scaling.factor > 1 else 1.0

    if scaling.attention_factor is not None:
        return scaling.attention_factor
    if scaling.mscale and scaling.mscale_all_dim:
        return grow(scaling.mscale) / grow(scaling.mscale_all_dim)
    return grow(1.0)
