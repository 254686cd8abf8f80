"""The CPU's variants are the references, and so are the gradients that JAX derives of these.

Seen to fail: with the input of a frozen kernel kept; with the gradient of a narrowing kernel not turned; with the
sigmoid of the wrong sign in the gradient of the gate; with the sum of a row of attention added, not taken off; with the
mean of a norm's gradient left out.
"""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from podium.models.layers import Norm
from podium.ops import attention, bias, linear, sampling
from podium.ops.activation import ACTIVATIONS, gated
from podium.ops.cpu import attention as cpu_attention
from podium.ops.cpu import bias as cpu_bias
from podium.ops.cpu import sampling as cpu_sampling
from podium.ops.cpu.linear import contract
from podium.ops.types import KeyValues, Visibility
from support import tiny


def draw(*shape: int, seed: int) -> jax.Array:
    return jax.random.normal(jax.random.key(seed), shape)


def check_gradients(ours, plain, *operands: jax.Array, wanted: tuple[int, ...], atol: float = 0.0) -> None:
    weights = draw(*jax.eval_shape(plain, *operands).shape, seed=9)

    def total(function, *operands):
        return jnp.sum(function(*operands) * weights)

    np.testing.assert_allclose(ours(*operands), plain(*operands), rtol=1e-6, atol=atol)
    gradients = jax.jit(jax.grad(partial(total, ours), argnums=wanted))(*operands)
    expected = jax.grad(partial(total, plain), argnums=wanted)(*operands)
    for x, y in zip(gradients, expected, strict=True):
        np.testing.assert_allclose(x, y, rtol=5e-5, atol=5e-5)


@pytest.mark.parametrize("wanted", [(0,), (1,), (0, 1)])
@pytest.mark.parametrize(
    "lead, inputs, outputs",
    [
        ((3, 5), (4,), (7,)),  # widens
        ((3, 5), (7,), (4,)),  # narrows
        ((3, 5), (6,), (2, 3)),  # into heads
        ((3, 5), (2, 3), (4,)),  # out of heads
        ((3,), (2, 4), (3, 5)),
        ((2, 3, 2), (4,), (4,)),
    ],
)
def test_contract_is_tensordot(lead, inputs, outputs, wanted) -> None:
    dims = len(inputs)
    x, kernel = draw(*lead, *inputs, seed=0), draw(*inputs, *outputs, seed=1)
    check_gradients(
        lambda x, kernel: contract(x, kernel, dims),
        lambda x, kernel: linear.reference(x, kernel, dims),
        x,
        kernel,
        wanted=wanted,
    )


def test_a_frozen_kernel_keeps_no_input_for_the_backward_pass() -> None:
    """With LoRA nearly all kernels are frozen: what is kept for them would be all activations of the model."""
    x, kernel = draw(64, 8, seed=0), draw(8, 8, seed=1)

    def kept(backward: object) -> int:
        return sum(leaf.size for leaf in jax.tree.leaves(backward))

    assert kept(jax.vjp(lambda x: contract(x, kernel, 1), x)[1]) < x.size
    assert kept(jax.vjp(lambda kernel: contract(x, kernel, 1), kernel)[1]) >= x.size


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_gated_is_the_activation_times_up(activation) -> None:
    gate, up = 4.0 * draw(5, 16, seed=0), draw(5, 16, seed=1)
    ours = partial(gated, activation=activation, implementation="cpu")
    check_gradients(ours, lambda gate, up: ACTIVATIONS[activation](gate) * up, gate, up, wanted=(0, 1))


def test_gated_stays_finite_where_the_exponential_does_not() -> None:
    gate = jnp.asarray([-200.0, -90.0, 0.0, 90.0, 200.0])
    gradient = jax.grad(lambda gate: jnp.sum(gated(gate, jnp.ones_like(gate), "silu", "cpu")))(gate)
    np.testing.assert_allclose(gradient, [0.0, 0.0, 0.5, 1.0, 1.0], atol=1e-6)


@pytest.mark.parametrize("implementation", ["cpu", "reference"])
@pytest.mark.parametrize("kind", ["rms", "layer"])
def test_a_norm_is_the_division_written_plainly(kind, implementation) -> None:
    # A large epsilon, so that one which is forgotten shows.
    norm = Norm(replace(tiny.CONFIG, norm_eps=0.5, implementation=implementation), 6, kind=kind)

    def plain(x):
        centred = x - x.mean(-1, keepdims=True) if kind == "layer" else x
        return centred / jnp.sqrt((centred**2).mean(-1, keepdims=True) + 0.5)

    check_gradients(norm, plain, draw(3, 5, 6, seed=0), wanted=(0,), atol=1e-6)


@pytest.mark.parametrize("variant", [cpu_attention.attention, attention.reference])
@pytest.mark.parametrize("cap", [None, 2.0])
def test_attention_is_softmax_written_plainly(cap: float | None, variant) -> None:
    """Its own backward pass beside the one that JAX derives; the last query may look at nothing."""
    batch, time, slots, heads, kv_heads, size = 2, 5, 7, 4, 2, 3
    query = draw(batch, time, heads, size, seed=0)
    keys, values = (draw(batch, kv_heads, slots, size, seed=seed) for seed in (1, 2))
    bias = draw(heads, time, slots, seed=3)
    mask = jax.random.bernoulli(jax.random.key(4), 0.6, (batch, time, slots)).at[:, -1].set(False)

    def ours(query: jax.Array, keys: jax.Array, values: jax.Array, bias: jax.Array) -> jax.Array:
        return variant(query, KeyValues(keys, values), mask, scale=0.7, softcap=cap, bias=bias)

    def plain(query: jax.Array, keys: jax.Array, values: jax.Array, bias: jax.Array) -> jax.Array:
        keys, values = (jnp.repeat(x, heads // kv_heads, axis=1) for x in (keys, values))
        scores = 0.7 * jnp.einsum("bthd,bhsd->bhts", query, keys)
        if cap is not None:
            scores = cap * jnp.tanh(scores / cap)
        scores = jnp.where(mask[:, None], scores + bias[None], -1e30)
        shares = jnp.exp(scores - scores.max(axis=-1, keepdims=True))
        return jnp.einsum("bhts,bhsd->bthd", shares / shares.sum(axis=-1, keepdims=True), values)

    # Sums of values of both signs: some results are near zero.
    check_gradients(ours, plain, query, keys, values, bias, wanted=(0, 1, 2, 3), atol=1e-6)


@pytest.mark.parametrize("implementation", ["cpu", "reference"])
def test_a_cache_gives_a_step_what_attention_to_all_gives(implementation) -> None:
    """Two tokens were read, with room for two more; the third is written and looks at all three."""
    keys, values = (draw(2, 2, 3, 8, seed=seed) for seed in (0, 1))
    query = draw(2, 1, 4, 8, seed=2)
    cache = attention.open_caches(KeyValues(keys[:, :, :2], values[:, :, :2]), 2, implementation)
    cache = cache.write(KeyValues(keys[:, :, 2:], values[:, :, 2:]), jnp.asarray(2))
    mask = jnp.asarray([[[True, True, True, False]]] * 2)
    out = attention.attention(
        query, cache, Visibility(mask), scale=0.5, softcap=None, bias=None, implementation=implementation
    )
    expected = attention.reference(query, KeyValues(keys, values), jnp.ones((2, 1, 3), bool), scale=0.5)
    np.testing.assert_allclose(out, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("time", [1, 2, 9])
def test_a_bias_by_distance_is_a_look_up_of_every_pair(time: int) -> None:
    """Buckets that differ on either side of a query, and a table that is larger than the buckets used."""
    table = draw(7, 3, seed=0)
    buckets = np.random.default_rng(1).integers(0, 7, 2 * time - 1)
    ours = partial(cpu_bias.relative_bias, buckets=buckets)
    check_gradients(ours, partial(bias.reference, buckets=buckets), table, wanted=(0,))


def test_the_first_highest_is_argmax() -> None:
    """Ties at the front, in the middle and at the end, and minus infinity."""
    rows = jnp.asarray([[3, 3, 1, 0], [0, 2, 2, 1], [0, 1, 2, 2], [-jnp.inf, -jnp.inf, -5, -jnp.inf], [-jnp.inf] * 4])
    assert cpu_sampling.first_highest(rows).tolist() == sampling.first_highest(rows, "reference").tolist()
