"""Networks that share frozen weights: policy, reference, reward and critic over one or several base models.

A `Network` is static: sizes, adapter, and the name of the base tree it stands on. Its weights are a dict with any of
"base" (its own full weights), "adapter" (low-rank, over a shared base) and "head" (scalar). Bases that nobody trains
are passed once, by name, however many networks stand on them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax

from podium.losses.logprobs import token_logprobs
from podium.models import transformer
from podium.models.config import TransformerConfig
from podium.models.heads import HEAD_AXES, apply_head, last_token
from podium.models.lora import LoraSpec
from podium.parallel.sharding import constrain

Tree = Any
Weights = dict[str, Tree]
Bases = Mapping[str, Tree]


@dataclass(frozen=True)
class Network:
    """The static part of one network; `base` names a frozen tree, None means that the weights bring their own."""

    config: TransformerConfig
    lora: LoraSpec | None = None
    base: str | None = None

    def params(self, bases: Bases, weights: Weights) -> Tree:
        return weights["base"] if self.base is None else bases[self.base]

    def hidden(
        self,
        bases: Bases,
        weights: Weights,
        ids: jax.Array,
        mask: jax.Array,
        *,
        branch: jax.Array | None = None,
        lower: jax.Array | None = None,
        first: int = 0,
    ) -> jax.Array:
        """Hidden states [batch, time, embed] of ids and mask [batch, time].

        `branch` packs several continuations of a prefix into a row; `lower` is what the first `first` layers made of
        the tokens, where networks share those.
        """
        ids, mask = constrain(ids, "batch", "time"), constrain(mask, "batch", "time")
        return transformer.forward(
            self.config,
            self.params(bases, weights),
            ids,
            mask,
            adapter=weights.get("adapter"),
            lora=self.lora,
            branch=branch,
            lower=lower,
            first=first,
        )

    def first_own_layer(self, weights: Weights) -> int:
        """How many of the lowest layers are the base's own, without an adapter."""
        if self.lora is None or "adapter" not in weights:
            return self.config.layers
        return self.lora.first_layer(self.config.layers)

    def logits(self, bases: Bases, weights: Weights, hidden: jax.Array) -> jax.Array:
        return transformer.logits(self.config, self.params(bases, weights), hidden)

    def axes(self, weights: Weights) -> Tree:
        """Logical axes of every leaf of `weights`."""
        base, adapter = transformer.parameter_axes(self.config, self.lora)
        known = {"base": base, "adapter": adapter, "head": HEAD_AXES}
        return {name: known[name] for name in weights}


def response_hidden(hidden: jax.Array, prompt: int) -> jax.Array:
    """The states that predict the response: positions prompt - 1 up to the last but one."""
    return hidden[:, prompt - 1 : -1]


def response_logprobs(
    network: Network,
    bases: Bases,
    weights: Weights,
    ids: jax.Array,
    mask: jax.Array,
    *,
    prompt: int,
    temperature: float,
    lower: jax.Array | None = None,
    first: int = 0,
) -> jax.Array:
    """Log-probabilities [batch, response] of ids [batch, prompt + response]; logits at response positions only."""
    hidden = response_hidden(network.hidden(bases, weights, ids, mask, lower=lower, first=first), prompt)
    return token_logprobs(network.logits(bases, weights, hidden), ids[:, prompt:], temperature=temperature)


def sequence_scores(
    network: Network,
    bases: Bases,
    weights: Weights,
    ids: jax.Array,
    mask: jax.Array,
    *,
    lower: jax.Array | None = None,
    first: int = 0,
) -> jax.Array:
    """One score per row of ids [batch, time], read at its last real token; float32 [batch]."""
    hidden = network.hidden(bases, weights, ids, mask, lower=lower, first=first)
    return apply_head(weights["head"], last_token(hidden, mask))
