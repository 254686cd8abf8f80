"""The attention of a block: projections, norms, rotation and cache around the operation."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from podium.models.config import BlockConfig
from podium.models.layers import Linear, Norm
from podium.models.lora import LoraSpec
from podium.models.rope import rotate
from podium.ops.attention import LayerCache, Memory, attention
from podium.ops.types import Alternating, KeyValues, Visibility


class Context(NamedTuple):
    """What the attention of every layer of one call shares.

    visible: which keys a query may look at; cos, sin: [batch, time, head_dim / 2], None where nothing is rotated;
    bias: float32 [heads, time, slots], added to scores, None where there is none; slot: where in the cache the call's
    own keys go, None when there is no cache.
    """

    visible: Visibility | Alternating
    cos: jax.Array | None = None
    sin: jax.Array | None = None
    bias: jax.Array | None = None
    slot: jax.Array | None = None


class Attention(nnx.Module):
    """Project, normalise and rotate where configured, write to the cache where there is one, attend, project back."""

    def __init__(self, config: BlockConfig, lora: LoraSpec | None, *, rngs: nnx.Rngs):
        def linear(name: str, inputs: dict[str, int], outputs: dict[str, int]) -> Linear:
            rank, scale = (lora.rank(name), lora.scale) if lora else (0, 0.0)
            bias = config.output_bias if name == "o_proj" else config.attention_bias
            return Linear(config, inputs, outputs, bias=bias, rank=rank, scale=scale, rngs=rngs)

        self.scale, self.softcap = config.score_scale, config.attention_softcap
        self.implementation = config.implementation
        self.interleaved = config.rope_interleaved
        width = {"embed": config.embed}
        self.q_proj = linear("q_proj", width, {"heads": config.heads, "head_dim": config.head_dim})
        self.k_proj = linear("k_proj", width, {"kv_heads": config.kv_heads, "head_dim": config.head_dim})
        self.v_proj = linear("v_proj", width, {"kv_heads": config.kv_heads, "head_dim": config.head_dim})
        self.o_proj = linear("o_proj", {"heads": config.heads, "head_dim": config.head_dim}, width)
        self.q_norm = Norm(config, config.head_dim, kind="rms") if config.qk_norm else None
        self.k_norm = Norm(config, config.head_dim, kind="rms") if config.qk_norm else None

    def __call__(self, x: jax.Array, context: Context, cache: LayerCache | None) -> tuple[jax.Array, Memory]:
        query, key = self.q_proj(x), self.k_proj(x)
        if self.q_norm is not None and self.k_norm is not None:
            query, key = self.q_norm(query), self.k_norm(key)
        if context.cos is not None and context.sin is not None:
            query = rotate(query, context.cos, context.sin, interleaved=self.interleaved)
            key = rotate(key, context.cos, context.sin, interleaved=self.interleaved)
        own = KeyValues(jnp.swapaxes(key, 1, 2), jnp.swapaxes(self.v_proj(x), 1, 2))
        memory: Memory = own
        if cache is not None:
            assert context.slot is not None, "a call with a cache says where its keys go"
            memory = cache.write(own, context.slot)
        return self._mix(query, memory, context), memory

    def project_kv(self, states: jax.Array) -> KeyValues:
        """Keys and values of states [batch, time, embed] that another stack attends to."""
        return KeyValues(jnp.swapaxes(self.k_proj(states), 1, 2), jnp.swapaxes(self.v_proj(states), 1, 2))

    def cross_attend(self, x: jax.Array, memory: Memory, context: Context) -> jax.Array:
        """Attend to what `project_kv` gave, or to the cache that it became."""
        return self._mix(self.q_proj(x), memory, context)

    def _mix(self, query: jax.Array, memory: Memory, context: Context) -> jax.Array:
        mixed = attention(
            query,
            memory,
            context.visible,
            scale=self.scale,
            softcap=self.softcap,
            bias=context.bias,
            implementation=self.implementation,
        )
        return self.o_proj(mixed)
