"""A learnt bias by relative distance (Raffel et al. 2020, arXiv 1910.10683, section 2.1)."""

import jax
import jax.numpy as jnp
import numpy as np

from podium.ops.choices import Implementation
from podium.ops.cpu import bias as cpu
from podium.ops.platform import resolve


def relative_bias(table: jax.Array, buckets: np.ndarray, implementation: Implementation) -> jax.Array:
    """Bias float32 [heads, time, time] from a table [buckets, heads].

    buckets: int [2 * time - 1], that of each distance, key place less query place, from 1 - time to time - 1.
    """
    table = table.astype(jnp.float32)
    return cpu.relative_bias(table, buckets) if resolve(implementation) == "cpu" else reference(table, buckets)


def reference(table: jax.Array, buckets: np.ndarray) -> jax.Array:
    """Look each pair's bucket up."""
    time = (len(buckets) + 1) // 2
    distance = np.arange(time)[None, :] - np.arange(time)[:, None]
    return jnp.transpose(jnp.take(table, buckets[distance + time - 1], axis=0), (2, 0, 1))
