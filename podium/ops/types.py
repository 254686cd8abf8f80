"""What attention reads: keys and values, caches of them, and which of them each query may look at."""

from typing import NamedTuple, Self

import jax
import jax.numpy as jnp

# The name under which a policy of `jax.checkpoint` may keep what attention gave.
RESIDUALS = "attention"


class KeyValues(NamedTuple):
    """Keys and values of one layer, each [batch, kv_heads, slots, head_dim]; stacked ones lead with layers."""

    keys: jax.Array
    values: jax.Array


class KVCache(NamedTuple):
    """Keys and values of the tokens read so far, in the layout of `KeyValues`, with room for more."""

    keys: jax.Array
    values: jax.Array

    def write(self, new: KeyValues, slot: jax.Array) -> Self:
        """Put the keys and values of new tokens where `slot` (a scalar) says."""
        zero = jnp.zeros((), slot.dtype)
        place = (zero, zero, slot, zero)
        keys = jax.lax.dynamic_update_slice(self.keys, new.keys.astype(self.keys.dtype), place)
        return type(self)(keys, jax.lax.dynamic_update_slice(self.values, new.values.astype(self.values.dtype), place))


class Segments(NamedTuple):
    """Which text each query [batch, time] and each key [batch, slots] belongs to: int32, 0 at padding.

    The tokens of a text are contiguous. packed: whether a row may hold several texts.
    """

    query: jax.Array
    key: jax.Array
    packed: bool


class Visibility(NamedTuple):
    """Which keys each query may look at, for all layers of a call.

    mask: boolean [batch, time or 1, slots], true = may be looked at. It tells all; the rest tells the same to kernels
    that never make an array of queries x keys, and is static but for the segments. segments: a query looks at its own
    text alone; None where only the mask tells. causal: at itself and what is before it; window: at the last so many,
    itself included.
    """

    mask: jax.Array
    segments: Segments | None = None
    causal: bool = False
    window: int | None = None


class Alternating(NamedTuple):
    """The visibility of a layer that is one of a scanned stack: `local` where `slides`, a traced scalar, is true."""

    slides: jax.Array
    full: Visibility
    local: Visibility

    def mask(self) -> jax.Array:
        """Select the layer's mask [batch, time, slots]."""
        return jnp.where(self.slides, self.local.mask, self.full.mask)
