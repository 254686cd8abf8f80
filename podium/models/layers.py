"""The parts of a block as nnx modules. Every parameter carries the logical axes of its dimensions as `axes`."""

import math

import jax
import jax.numpy as jnp
from flax import nnx

from podium.models.config import BlockConfig
from podium.models.lora import LoraSpec
from podium.ops.activation import ACTIVATIONS, gated
from podium.ops.linear import contract
from podium.ops.norm import to_unit_square
from podium.parallel.sharding import spread

INIT_STD = 0.02


def _normal(rngs: nnx.Rngs, shape: tuple[int, ...], std: float) -> jax.Array:
    return std * jax.random.normal(rngs.params(), shape, jnp.float32)


def _of_adapter(axes: tuple[str, ...]) -> tuple[str, ...]:
    """Name dimensions that an adapter's kernels are cut along otherwise than those of the kernel beside them."""
    return tuple({"mlp": "lora_mlp", "head_dim": "lora_head_dim"}.get(axis, axis) for axis in axes)


class Linear(nnx.Module):
    """Contract the last dimensions of x with a kernel [*inputs, *outputs]; bias and low-rank adapter are optional."""

    def __init__(
        self,
        config: BlockConfig,
        inputs: dict[str, int],
        outputs: dict[str, int],
        *,
        bias: bool,
        rank: int,
        scale: float,
        rngs: nnx.Rngs,
    ):
        in_shape, out_shape = tuple(inputs.values()), tuple(outputs.values())
        in_axes, out_axes = tuple(inputs), tuple(outputs)
        self.in_axes, self.out_axes, self.scale = in_axes, out_axes, scale
        self.dtype, self.implementation = config.dtype, config.implementation
        self.kernel = nnx.Param(_normal(rngs, in_shape + out_shape, INIT_STD), axes=in_axes + out_axes)
        self.bias = nnx.Param(jnp.zeros(out_shape), axes=out_axes) if bias else None
        # A as in the paper's code: uniform Kaiming with a = sqrt(5), which is U(-1/sqrt(fan_in), 1/sqrt(fan_in)).
        bound = 1.0 / math.sqrt(math.prod(in_shape))
        self.lora_a = (
            nnx.LoRAParam(
                jax.random.uniform(rngs.params(), (*in_shape, rank), jnp.float32, -bound, bound),
                axes=(*_of_adapter(in_axes), "lora"),
            )
            if rank
            else None
        )
        self.lora_b = (
            nnx.LoRAParam(jnp.zeros((rank, *out_shape)), axes=("lora", *_of_adapter(out_axes))) if rank else None
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        y = self._contract(x, self.kernel, self.in_axes, self.out_axes)
        if self.lora_a is not None and self.lora_b is not None:
            low = self._contract(x, self.lora_a, self.in_axes, ("lora",))
            y = y + self._contract(low * self.scale, self.lora_b, ("lora",), self.out_axes)
        if self.bias is not None:
            bias = self._weights(self.bias, self.out_axes)
            y = y + jnp.expand_dims(bias, tuple(range(y.ndim - len(self.out_axes))))
        return y

    def _contract(
        self, x: jax.Array, kernel: nnx.Param[jax.Array], inputs: tuple[str, ...], outputs: tuple[str, ...]
    ) -> jax.Array:
        return contract(x, self._weights(kernel, inputs + outputs), len(inputs), self.implementation)

    def _weights(self, stored: nnx.Param[jax.Array], axes: tuple[str, ...]) -> jax.Array:
        """As they are computed with."""
        return spread(stored[...].astype(self.dtype), axes)


class Norm(nnx.Module):
    """x / sqrt(mean(x^2) + eps) * scale over the last dimension (Zhang and Sennrich 2019); "layer" centres x first.

    Statistics are float32. Llama casts before it scales; Gemma, whose scale is stored as its distance from 1, and layer
    norms after: it matters in bfloat16.
    """

    def __init__(self, config: BlockConfig, size: int | None = None, *, kind: str | None = None):
        self.eps, self.offset, self.implementation = config.norm_eps, config.unit_offset, config.implementation
        self.centred = (kind or config.norm) == "layer"
        shape = (size or config.embed,)
        self.scale = nnx.Param(jnp.zeros(shape) if self.offset else jnp.ones(shape), axes=("norm",))

    def __call__(self, x: jax.Array) -> jax.Array:
        wide = x.astype(jnp.float32)
        if self.centred:
            wide = wide - jnp.mean(wide, axis=-1, keepdims=True)
        normed = to_unit_square(wide, self.eps, self.implementation)
        scale = jnp.expand_dims(self.scale[...], tuple(range(x.ndim - 1)))
        if self.offset or self.centred:
            return (normed * (scale + 1.0 if self.offset else scale)).astype(x.dtype)
        return normed.astype(x.dtype) * scale.astype(x.dtype)


class MLP(nnx.Module):
    """down(act(gate(x)) * up(x)) (Shazeer 2020), or down(act(up(x))) without a gate."""

    def __init__(self, config: BlockConfig, lora: LoraSpec | None, *, rngs: nnx.Rngs):
        def linear(name: str, inputs: dict[str, int], outputs: dict[str, int]) -> Linear:
            rank, scale = (lora.rank(name), lora.scale) if lora else (0, 0.0)
            return Linear(config, inputs, outputs, bias=config.mlp_bias, rank=rank, scale=scale, rngs=rngs)

        self.activation, self.implementation = config.activation, config.implementation
        self.gate_proj = linear("gate_proj", {"embed": config.embed}, {"mlp": config.mlp}) if config.gated else None
        self.up_proj = linear("up_proj", {"embed": config.embed}, {"mlp": config.mlp})
        self.down_proj = linear("down_proj", {"mlp": config.mlp}, {"embed": config.embed})

    def __call__(self, x: jax.Array) -> jax.Array:
        if self.gate_proj is None:
            return self.down_proj(ACTIVATIONS[self.activation](self.up_proj(x)))
        return self.down_proj(gated(self.gate_proj(x), self.up_proj(x), self.activation, self.implementation))
