"""Prompts with their responses as arrays, and what a network hands back of them."""

from dataclasses import dataclass, field
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


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Trunk:
    """What the lowest layers of a frozen tree made of a text: every network that has them unchanged starts behind them.

    states: [batch, time, embed]; layers: how many layers; base: the name of the tree.
    """

    states: jax.Array
    layers: int = field(metadata={"static": True})
    base: str = field(metadata={"static": True})


class ForwardOutput(NamedTuple):
    """What came out of a network: states, the cache where there is one, states behind the trunk where it was named."""

    states: jax.Array
    cache: Any = None
    trunk_states: jax.Array | None = None
