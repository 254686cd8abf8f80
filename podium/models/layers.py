"""The parts of a block as nnx modules. Every parameter carries the logical axes of its dimensions as `axes`."""

import math

import jax
import jax.numpy as jnp
from flax import nnx

from podium.models.config import TransformerConfig
from podium.models.lora import LoraSpec

INIT_STD = 0.02


def _normal(rngs: nnx.Rngs, shape: tuple[int, ...], std: float) -> jax.Array:
    return std * jax.random.normal(rngs.params(), shape, jnp.float32)


class Linear(nnx.Module):
    """Contract the last dimensions of x with a kernel [*inputs, *outputs]; bias and low-rank adapter are optional."""

    def __init__(
        self,
        inputs: dict[str, int],
        outputs: dict[str, int],
        *,
        bias: bool,
        rank: int,
        scale: float,
        dtype: str,
        rngs: nnx.Rngs,
    ):
        in_shape, out_shape = tuple(inputs.values()), tuple(outputs.values())
        in_axes, out_axes = tuple(inputs), tuple(outputs)
        self.num_inputs, self.num_outputs, self.scale, self.dtype = len(in_shape), len(out_shape), scale, dtype
        self.kernel = nnx.Param(_normal(rngs, in_shape + out_shape, INIT_STD), axes=in_axes + out_axes)
        self.bias = nnx.Param(jnp.zeros(out_shape), axes=out_axes) if bias else None
        # A as in the paper's code: uniform Kaiming with a = sqrt(5), which is U(-1/sqrt(fan_in), 1/sqrt(fan_in)).
        bound = 1.0 / math.sqrt(math.prod(in_shape))
        self.lora_a = (
            nnx.LoRAParam(
                jax.random.uniform(rngs.params(), (*in_shape, rank), jnp.float32, -bound, bound),
                axes=(*in_axes, "lora"),
            )
            if rank
            else None
        )
        self.lora_b = nnx.LoRAParam(jnp.zeros((rank, *out_shape)), axes=("lora", *out_axes)) if rank else None

    def __call__(self, x: jax.Array) -> jax.Array:
        y = jnp.tensordot(x, self.kernel[...].astype(self.dtype), axes=self.num_inputs)
        if self.lora_a is not None and self.lora_b is not None:
            low = jnp.tensordot(x, self.lora_a[...].astype(self.dtype), axes=self.num_inputs)
            y = y + jnp.tensordot(low * self.scale, self.lora_b[...].astype(self.dtype), axes=1)
        if self.bias is not None:
            y = y + jnp.expand_dims(self.bias[...].astype(self.dtype), tuple(range(y.ndim - self.num_outputs)))
        return y


class RMSNorm(nnx.Module):
    """x / sqrt(mean(x^2) + eps) * scale, over the last dimension (Zhang and Sennrich 2019); statistics in float32."""

    def __init__(self, config: TransformerConfig):
        self.eps = config.norm_eps
        self.scale = nnx.Param(jnp.ones((config.embed,), jnp.float32), axes=("norm",))

    def __call__(self, x: jax.Array) -> jax.Array:
        wide = x.astype(jnp.float32)
        normed = wide * jax.lax.rsqrt(jnp.mean(jnp.square(wide), axis=-1, keepdims=True) + self.eps)
        scale = jnp.expand_dims(self.scale[...], tuple(range(x.ndim - 1)))
        # Cast before the scale, as Llama does: it matters in bfloat16.
        return normed.astype(x.dtype) * scale.astype(x.dtype)


class MLP(nnx.Module):
    """SwiGLU (Shazeer 2020): down(silu(gate(x)) * up(x))."""

    def __init__(self, config: TransformerConfig, lora: LoraSpec | None, *, rngs: nnx.Rngs):
        def linear(name: str, inputs: dict[str, int], outputs: dict[str, int]) -> Linear:
            rank, scale = (lora.rank(name), lora.scale) if lora else (0, 0.0)
            return Linear(inputs, outputs, bias=config.mlp_bias, rank=rank, scale=scale, dtype=config.dtype, rngs=rngs)

        self.gate_proj = linear("gate_proj", {"embed": config.embed}, {"mlp": config.mlp})
        self.up_proj = linear("up_proj", {"embed": config.embed}, {"mlp": config.mlp})
        self.down_proj = linear("down_proj", {"mlp": config.mlp}, {"embed": config.embed})

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.down_proj(jax.nn.silu(self.gate_proj(x)) * self.up_proj(x))
