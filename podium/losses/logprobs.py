"""Turn logits into log-probabilities of chosen tokens, and into entropies.

Logits are the largest arrays of a step (batch x time x vocabulary) and may be bfloat16. Both functions compute in
float32 and are written as reductions over a cast, which XLA fuses on accelerators; its CPU backend materialises the
operand of a reduction, one temporary, freed at once. `token_logprobs` has its own backward pass, because the one that
JAX derives keeps float32 exponentials of that size alive from the forward pass to the backward pass. A vocabulary
sharded over the mesh stays where it is: only arrays of batch x time cross devices.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from podium.ops.picking import pick


def token_logprobs(
    logits: Float[Array, "*shape vocab"], ids: Int[Array, "*shape"], *, temperature: float = 1.0
) -> Float[Array, "*shape"]:
    """Return log softmax(logits / temperature) at `ids`, in float32.

    The logits at a position predict the token at the same position of `ids`: shift before calling. Where the incoming
    gradient is zero the logits get exactly zero, so that a masked position may hold anything. A temperature that is
    not positive raises ValueError: greedy decoding has no distribution.
    """
    return _token_logprobs(jnp.asarray(logits), jnp.asarray(ids), _checked(temperature))


def entropy(logits: Float[Array, "*shape vocab"], *, temperature: float = 1.0) -> Float[Array, "*shape"]:
    """Return the entropy of softmax(logits / temperature) in nats, in float32; a logit of -inf adds nothing."""
    logits = jnp.asarray(logits)
    below = _below_peak(logits, _checked(temperature))[0]
    weights = jnp.exp(below)
    # 0 * -inf is NaN, in the sum and in its gradient.
    finite = jnp.maximum(below, jnp.finfo(jnp.float32).min)
    total = weights.sum(axis=-1)
    return jnp.log(total) - (weights * finite).sum(axis=-1) / total


def _checked(temperature: float) -> float:
    if not temperature > 0:
        raise ValueError(f"the temperature of a distribution must be positive, not {temperature}")
    return float(temperature)


def _below_peak(logits: Array, temperature: float) -> tuple[Array, Array]:
    """Return logits minus the largest of their position, over the temperature, and the largest, both float32.

    Small exact numbers go on from here: logits share a large offset, which would cost the last digits of any sum.
    """
    peak = jax.lax.stop_gradient(logits.max(axis=-1)).astype(jnp.float32)
    return (logits.astype(jnp.float32) - peak[..., None]) / temperature, peak


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _token_logprobs(logits: Array, ids: Array, temperature: float) -> Array:
    return _forward(logits, ids, temperature)[0]


def _forward(logits: Array, ids: Array, temperature: float) -> tuple[Array, tuple[Array, Array, Array]]:
    below, peak = _below_peak(logits, temperature)
    log_total = jnp.log(jnp.exp(below).sum(axis=-1))
    # Picked from what came in: picking from `below` would need it as an array of its own.
    chosen = pick(logits, ids).astype(jnp.float32)
    return (chosen - peak) / temperature - log_total, (logits, ids, log_total)


def _backward(temperature: float, saved: tuple[Array, Array, Array], gradient: Array) -> tuple[Array, None]:
    logits, ids, log_total = saved
    probs = jnp.exp(_below_peak(logits, temperature)[0] - log_total[..., None])
    is_chosen = jax.lax.broadcasted_iota(ids.dtype, logits.shape, logits.ndim - 1) == ids[..., None]
    slope = (is_chosen.astype(jnp.float32) - probs) / temperature
    weight = gradient[..., None]
    return jnp.where(weight == 0, 0.0, weight * slope).astype(logits.dtype), None


_token_logprobs.defvjp(_forward, _backward)
