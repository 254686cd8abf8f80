"""Networks that share frozen weights: policy, reference, reward and critic over one or several base models.

A `Network` is static: sizes, adapter, and the name of the base tree it stands on. Its weights are a dict with any of
"base" (its own full weights), "adapter" (low-rank, over a shared base) and "head" (scalar). Bases that nobody trains
are passed once, by name, however many networks stand on them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from podium.losses.chunks import over_columns
from podium.losses.logprobs import entropy, token_logprobs
from podium.models import family
from podium.models.config import NetworkConfig
from podium.models.heads import HEAD_AXES, apply_head
from podium.models.lora import LoraSpec
from podium.models.packing import Packed
from podium.models.precision import in_compute_type
from podium.models.text import Text, Trunk
from podium.parallel.sharding import constrain

Tree = Any
Weights = dict[str, Tree]
Bases = Mapping[str, Tree]
Arrays = TypeVar("Arrays")


@dataclass(frozen=True)
class Network:
    """The static part of one network; `base` names a frozen tree, None means that the weights bring their own."""

    config: NetworkConfig
    lora: LoraSpec | None = None
    base: str | None = None

    def compute(self, weights: Weights) -> Weights:
        """Trained weights in the type that this network computes in."""
        return in_compute_type(weights, self.config.dtype)

    def params(self, bases: Bases, weights: Weights) -> Tree:
        return weights["base"] if self.base is None else bases[self.base]

    def response_states(self, bases: Bases, weights: Weights, text: Text, *, trunk: Trunk | None = None) -> jax.Array:
        """States [batch, response, embed] that predict each response token.

        `trunk` is used by a network that stands on its base, and passed over by any other.
        """
        adapter, params = weights.get("adapter"), self.params(bases, weights)
        return family.response_states(
            self.config,
            params,
            over_rows(text),
            adapter=adapter,
            lora=self.lora,
            trunk=self._trunk(trunk),
        )

    def scores(self, bases: Bases, weights: Weights, text: Text, *, trunk: Trunk | None = None) -> jax.Array:
        """One score per text, read at its last real token; float32 [batch]."""
        adapter, params = weights.get("adapter"), self.params(bases, weights)
        states = family.last_states(
            self.config,
            params,
            over_rows(text),
            adapter=adapter,
            lora=self.lora,
            trunk=self._trunk(trunk),
        )
        return apply_head(weights["head"], states)

    def packed_states(self, bases: Bases, weights: Weights, packed: Packed) -> jax.Array:
        """States [rows, width, embed] of packed rows."""
        adapter, params = weights.get("adapter"), self.params(bases, weights)
        return family.packed_states(self.config, params, over_rows(packed), adapter=adapter, lora=self.lora)

    def packed_scores(self, bases: Bases, weights: Weights, packed: Packed, ends: jax.Array) -> jax.Array:
        """Scores [rows, responses] at the columns `ends` [rows, responses]; float32."""
        states = self.packed_states(bases, weights, packed)
        return apply_head(weights["head"], jnp.take_along_axis(states, ends[:, :, None], axis=1))

    def logits(self, bases: Bases, weights: Weights, states: jax.Array) -> jax.Array:
        return family.logits(self.config, self.params(bases, weights), states)

    def token_logprobs(
        self, bases: Bases, weights: Weights, states: jax.Array, ids: jax.Array, *, temperature: float = 1.0
    ) -> jax.Array:
        """Log-probabilities [rows, time] of the ids [rows, time] that the states predict."""

        def logprobs(states: jax.Array, ids: jax.Array) -> jax.Array:
            return token_logprobs(self.logits(bases, weights, states), ids, temperature=temperature)

        result: jax.Array = over_columns(logprobs, states, ids, vocab=self.config.vocab_size)
        return result

    def token_statistics(
        self, bases: Bases, weights: Weights, states: jax.Array, ids: jax.Array, *, temperature: float
    ) -> tuple[jax.Array, jax.Array]:
        """Log-probabilities of the ids and entropies, each [rows, time]; entropies are constants to the gradient."""

        def statistics(states: jax.Array, ids: jax.Array) -> tuple[jax.Array, jax.Array]:
            logits = self.logits(bases, weights, states)
            entropies = entropy(jax.lax.stop_gradient(logits), temperature=temperature)
            return token_logprobs(logits, ids, temperature=temperature), entropies

        logprobs, entropies = over_columns(statistics, states, ids, vocab=self.config.vocab_size)
        return logprobs, entropies

    def response_logprobs(
        self, bases: Bases, weights: Weights, text: Text, *, temperature: float, trunk: Trunk | None = None
    ) -> jax.Array:
        """Log-probabilities [batch, response]."""
        states = self.response_states(bases, weights, text, trunk=trunk)
        return self.token_logprobs(bases, weights, states, text.response_ids, temperature=temperature)

    def _trunk(self, trunk: Trunk | None) -> Trunk | None:
        return trunk if trunk is not None and trunk.base == self.base else None

    def axes(self, weights: Weights) -> Tree:
        """Logical axes of every leaf of `weights`."""
        base, adapter = family.parameter_axes(self.config, self.lora)
        known = {"base": base, "adapter": adapter, "head": HEAD_AXES}
        return {name: known[name] for name in weights}


def over_rows(arrays: Arrays) -> Arrays:
    """Pin every array [rows, ...] to the devices that share the batch."""
    return jax.tree.map(lambda array: constrain(array, "batch", *[None] * (array.ndim - 1)), arrays)
