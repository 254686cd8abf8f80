"""The parts of a block as nnx modules. Every parameter carries the logical axes of its dimensions as `axes`."""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from podium.models.config import Activation, BlockConfig
from podium.models.lora import LoraSpec

INIT_STD = 0.02


def _normal(rngs: nnx.Rngs, shape: tuple[int, ...], std: float) -> jax.Array:
    return std * jax.random.normal(rngs.params(), shape, jnp.float32)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def contract(x: jax.Array, kernel: jax.Array, dims: int) -> jax.Array:
    """Contract the last `dims` dimensions of x with the first of the kernel: tensordot with a backward pass of its own.

    The gradient of a kernel is a product over all tokens, and one of its operands has to be transposed. XLA for CPUs
    computes what leads to that operand anew inside the transposition, without vector instructions: for the gate of an
    MLP that took half of a training step. So it is the narrower one, which for all widening layers is x itself.
    """
    return jnp.tensordot(x, kernel, axes=dims)


def _contract_forward(x: Any, kernel: Any, dims: int) -> tuple[jax.Array, Any]:
    # A frozen kernel needs no x for the backward pass: it is not kept.
    return contract(x.value, kernel.value, dims), (x.value if kernel.perturbed else None, kernel.value)


def _contract_backward(dims: int, kept: Any, dy: Any) -> tuple[Any, Any]:
    x, kernel = kept
    if isinstance(dy, jax.custom_derivatives.SymbolicZero):
        return None, None
    outputs = kernel.ndim - dims
    lead = dy.ndim - outputs
    into = tuple(range(lead, dy.ndim)), tuple(range(dims, kernel.ndim))
    dx = jax.lax.dot_general(dy, kernel, (into, ((), ())))
    if x is None:
        return dx, None
    tokens = tuple(range(lead))
    if math.prod(kernel.shape[:dims]) <= math.prod(kernel.shape[dims:]):
        return dx, jax.lax.dot_general(x, dy, ((tokens, tokens), ((), ())))
    # Behind a barrier: XLA would move the transposition into the product, which then misses its fast kernels.
    swapped = jax.lax.optimization_barrier(jax.lax.dot_general(dy, x, ((tokens, tokens), ((), ()))))
    return dx, jnp.transpose(swapped, (*range(outputs, kernel.ndim), *range(outputs)))


contract.defvjp(_contract_forward, _contract_backward, symbolic_zeros=True)


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
        y = contract(x, self.kernel[...].astype(self.dtype), self.num_inputs)
        if self.lora_a is not None and self.lora_b is not None:
            low = contract(x, self.lora_a[...].astype(self.dtype), self.num_inputs)
            y = y + contract(low * self.scale, self.lora_b[...].astype(self.dtype), 1)
        if self.bias is not None:
            y = y + jnp.expand_dims(self.bias[...].astype(self.dtype), tuple(range(y.ndim - self.num_outputs)))
        return y


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _to_unit_square(x: jax.Array, eps: float) -> jax.Array:
    """x / sqrt(mean(x^2) + eps) over the last dimension. The backward pass keeps x and one number per row.

    Derived by JAX it takes twice as many passes over arrays of x's size, a twentieth of a small model's training step.
    """
    return _unit_square_forward(x, eps)[0]


def _unit_square_forward(x: jax.Array, eps: float) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    factor = jax.lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + eps)
    return x * factor, (x, factor)


def _unit_square_backward(eps: float, kept: tuple[jax.Array, jax.Array], dy: jax.Array) -> tuple[jax.Array]:
    x, factor = kept
    normed = x * factor
    return (factor * (dy - normed * jnp.mean(dy * normed, axis=-1, keepdims=True)),)


_to_unit_square.defvjp(_unit_square_forward, _unit_square_backward)


class Norm(nnx.Module):
    """x / sqrt(mean(x^2) + eps) * scale over the last dimension (Zhang and Sennrich 2019); "layer" centres x first.

    Statistics are float32. Llama casts before it scales; Gemma, whose scale is stored as its distance from 1, and layer
    norms after: it matters in bfloat16.
    """

    def __init__(self, config: BlockConfig, size: int | None = None, *, kind: str | None = None):
        self.eps, self.offset = config.norm_eps, config.unit_offset
        self.centred = (kind or config.norm) == "layer"
        shape = (size or config.embed,)
        self.scale = nnx.Param(jnp.zeros(shape) if self.offset else jnp.ones(shape), axes=("norm",))

    def __call__(self, x: jax.Array) -> jax.Array:
        wide = x.astype(jnp.float32)
        if self.centred:
            wide = wide - jnp.mean(wide, axis=-1, keepdims=True)
        normed = _to_unit_square(wide, self.eps)
        scale = jnp.expand_dims(self.scale[...], tuple(range(x.ndim - 1)))
        if self.offset or self.centred:
            return (normed * (scale + 1.0 if self.offset else scale)).astype(x.dtype)
        return normed.astype(x.dtype) * scale.astype(x.dtype)


ACTIVATIONS: dict[Activation, Callable[[jax.Array], jax.Array]] = {
    "silu": jax.nn.silu,
    "gelu_tanh": functools.partial(jax.nn.gelu, approximate=True),
    "gelu": functools.partial(jax.nn.gelu, approximate=False),
    "relu": jax.nn.relu,
}


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def gated(gate: jax.Array, up: jax.Array, activation: Activation) -> jax.Array:
    """act(gate) * up, of which the backward pass keeps the two operands alone."""
    return ACTIVATIONS[activation](gate) * up


def _gated_backward(
    activation: Activation, kept: tuple[jax.Array, jax.Array], dy: jax.Array
) -> tuple[jax.Array, jax.Array]:
    gate, up = kept
    if activation == "silu":
        share = jax.nn.sigmoid(gate)
        return dy * up * share * (1 + gate * (1 - share)), dy * gate * share
    value, pull = jax.vjp(ACTIVATIONS[activation], gate)
    return pull(dy * up)[0], dy * value


gated.defvjp(lambda gate, up, activation: (gated(gate, up, activation), (gate, up)), _gated_backward)


class MLP(nnx.Module):
    """down(act(gate(x)) * up(x)) (Shazeer 2020), or down(act(up(x))) without a gate."""

    def __init__(self, config: BlockConfig, lora: LoraSpec | None, *, rngs: nnx.Rngs):
        def linear(name: str, inputs: dict[str, int], outputs: dict[str, int]) -> Linear:
            rank, scale = (lora.rank(name), lora.scale) if lora else (0, 0.0)
            return Linear(inputs, outputs, bias=config.mlp_bias, rank=rank, scale=scale, dtype=config.dtype, rngs=rngs)

        self.activation = config.activation
        self.gate_proj = linear("gate_proj", {"embed": config.embed}, {"mlp": config.mlp}) if config.gated else None
        self.up_proj = linear("up_proj", {"embed": config.embed}, {"mlp": config.mlp})
        self.down_proj = linear("down_proj", {"mlp": config.mlp}, {"embed": config.embed})

    def __call__(self, x: jax.Array) -> jax.Array:
        if self.gate_proj is None:
            return self.down_proj(ACTIVATIONS[self.activation](self.up_proj(x)))
        return self.down_proj(gated(self.gate_proj(x), self.up_proj(x), self.activation))
