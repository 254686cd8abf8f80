"""Reduce over the positions that count, and only those.

Every function takes a boolean `mask` (true = counts), works in float32 whatever comes in, is defined (zero) where
nothing counts, and lets no value at a position that does not count, not even NaN, into a result or a gradient.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

# The variance floor of the original code for Ziegler et al. 2019 and of every implementation that follows it.
WHITEN_EPS = 1e-8


def fill(x: Array, mask: Bool[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Convert to float32 and put zero where the mask is false.

    Call it on inputs, before any arithmetic: a zero put over a NaN afterwards still has a NaN gradient.
    """
    return jnp.where(jnp.asarray(mask, bool), jnp.asarray(x).astype(jnp.float32), 0.0)


def count(mask: Bool[Array, "*shape"]) -> Float[Array, ""]:
    """Count the true positions, exactly, as float32."""
    return jnp.asarray(mask, bool).sum(dtype=jnp.int32).astype(jnp.float32)


def mean(x: Array, mask: Bool[Array, "*shape"], *, total: Array | None = None) -> Float[Array, ""]:
    """Average over all true positions of all axes; zero where there are none.

    `total` replaces the number to divide by. Give every micro-batch the count of the whole batch, and the sum of their
    means, and of their gradients, is that of the whole batch, however the tokens fall.
    """
    number = count(mask) if total is None else jnp.asarray(total).astype(jnp.float32)
    return fill(x, mask).sum() / jnp.maximum(number, 1.0)


def variance(x: Array, mask: Bool[Array, "*shape"], *, ddof: int = 0) -> Float[Array, ""]:
    """Return the variance over all true positions: squared deviations over count - ddof, zero below ddof + 1."""
    deviation = fill(fill(x, mask) - mean(x, mask), mask)
    return jnp.square(deviation).sum() / jnp.maximum(count(mask) - ddof, 1.0)


def whiten(x: Array, mask: Bool[Array, "*shape"], *, shift_mean: bool = True, ddof: int = 0) -> Float[Array, "*shape"]:
    """Scale to unit variance over all true positions, and to zero mean unless `shift_mean` is false; zero elsewhere.

    With sharded inputs under `jit` the moments are those of the global batch, so the result does not depend on how
    many devices share it. Public implementations differ in `ddof`: docs/rlhf.md section 6.
    """
    average = mean(x, mask)
    scaled = (fill(x, mask) - average) * jax.lax.rsqrt(variance(x, mask, ddof=ddof) + WHITEN_EPS)
    return fill(scaled if shift_mean else scaled + average, mask)


def last(mask: Bool[Array, "batch time"]) -> Bool[Array, "batch time"]:
    """Mark the last true position of each row; nothing in a row without one."""
    counts = jnp.asarray(mask, bool)
    behind = jnp.cumsum(counts[:, ::-1], axis=1, dtype=jnp.int32)[:, ::-1]
    return counts & (behind == 1)
