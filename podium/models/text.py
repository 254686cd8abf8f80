"""Prompts with their responses as arrays, and what a network hands back of them."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class Text(NamedTuple):
    """Prompts aligned right, responses aligned left: ids and boolean masks, [batch, prompt] and [batch, response].

    Right- and left-aligned, the two stand side by side: see `joined`.
    """

    prompt_ids: jax.Array
    prompt_mask: jax.Array
    response_ids: jax.Array
    response_mask: jax.Array

    def joined(self) -> tuple[jax.Array, jax.Array]:
        """Ids and mask [batch, prompt + response]."""
        return (
            jnp.concatenate([self.prompt_ids, self.response_ids], axis=1),
            jnp.concatenate([self.prompt_mask, self.response_mask], axis=1),
        )

    def with_ending(self, ending: tuple[int, ...], rows: jax.Array) -> "Text":
        """Put an ending behind the responses of `rows` (boolean [batch]), which fill their width."""
        shape = rows.shape[0], len(ending)
        ids = jnp.broadcast_to(jnp.asarray(ending, self.response_ids.dtype), shape)
        return self._replace(
            response_ids=jnp.concatenate([self.response_ids, ids], axis=1),
            response_mask=jnp.concatenate([self.response_mask, jnp.broadcast_to(rows[:, None], shape)], axis=1),
        )


class Passed(NamedTuple):
    """What came out of a network: states, the cache where there is one, and what the tapped layers gave (or None)."""

    x: jax.Array
    cache: Any = None
    lower: jax.Array | None = None
