"""podium.losses.logprobs against loops; dtypes, extreme logits, memory and sharding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from podium.losses.logprobs import entropy, token_logprobs
from support import reference
from support.arrays import floats

SHAPE = (2, 3, 7)
IDS = arrays.arrays(np.int32, SHAPE[:2], elements=st.integers(0, 6))
TEMPERATURE = st.sampled_from([0.25, 0.7, 1.0, 1.9])


@given(floats(SHAPE, 8), IDS, TEMPERATURE)
def test_token_logprobs_are_the_loop(logits, ids, temperature):
    expected = reference.token_logprobs(logits, ids, temperature)
    np.testing.assert_allclose(token_logprobs(logits, ids, temperature=temperature), expected, rtol=1e-6, atol=1e-6)


@given(floats(SHAPE, 8), TEMPERATURE)
def test_entropy_is_the_loop(logits, temperature):
    expected = reference.entropy(logits, temperature)
    np.testing.assert_allclose(entropy(logits, temperature=temperature), expected, rtol=1e-5, atol=1e-6)


@given(floats(SHAPE, 3), IDS, floats(SHAPE[:2]))
def test_the_written_gradient_is_the_slope(logits, ids, weight):
    gradient = jax.grad(lambda x: (token_logprobs(x, ids, temperature=0.7) * weight).sum())(logits)
    expected = reference.slope(lambda x: float((reference.token_logprobs(x, ids, 0.7) * weight).sum()), logits)
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-5)


def test_bfloat16_logits_are_reduced_in_float32():
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 1000)), jnp.bfloat16)
    ids = np.array([[1, 2, 3], [997, 998, 999]])
    result = token_logprobs(logits, ids)
    assert result.dtype == jnp.float32
    exact = np.asarray(logits.astype(jnp.float32), np.float64)
    # bfloat16 has 8 bits: near 7, a result computed in it is off by up to 0.016.
    np.testing.assert_allclose(result, reference.token_logprobs(exact, ids, 1.0), rtol=1e-6)
    assert entropy(logits).dtype == jnp.float32
    gradient = jax.grad(lambda x: token_logprobs(x, ids).sum())(logits)
    assert gradient.dtype == jnp.bfloat16


def test_extreme_logits_stay_finite():
    logits = np.array([[1e4, -1e4, 0.0], [-np.inf, 2.0, 2.0]], np.float32)
    np.testing.assert_allclose(token_logprobs(logits, np.array([1, 2])), [-2e4, -np.log(2)], rtol=1e-6)
    np.testing.assert_allclose(entropy(logits), [0, np.log(2)], atol=1e-6)
    assert np.isfinite(jax.grad(lambda x: token_logprobs(x, np.array([1, 2])).sum())(logits)).all()
    assert np.isfinite(jax.grad(lambda x: entropy(x).sum())(logits)).all()


def test_a_position_without_gradient_may_hold_nan():
    logits = np.zeros((1, 2, 4), np.float32)
    logits[0, 1] = np.nan

    def loss(x):
        logprobs = token_logprobs(x, np.array([[1, 2]]))
        return jnp.where(np.array([[True, False]]), logprobs, 0.0).sum()

    np.testing.assert_allclose(jax.grad(loss)(logits), [[[-0.25, 0.75, -0.25, -0.25], [0, 0, 0, 0]]])


@pytest.mark.parametrize("temperature", [0, 0.0, -1.0, float("nan")])
def test_a_temperature_that_makes_no_distribution_is_refused(temperature):
    with pytest.raises(ValueError, match="positive"):
        token_logprobs(np.zeros((1, 4), np.float32), np.zeros(1, np.int32), temperature=temperature)
    with pytest.raises(ValueError, match="positive"):
        entropy(np.zeros((1, 4), np.float32), temperature=temperature)


def test_the_backward_pass_keeps_no_float32_logits():
    batch, time, vocab = 4, 16, 1024
    logits, ids = jnp.zeros((batch, time, vocab), jnp.bfloat16), jnp.zeros((batch, time), jnp.int32)
    _, saved = jax.vjp(lambda x: token_logprobs(x, ids), logits)
    sizes = [leaf.nbytes for leaf in jax.tree.leaves(saved)]
    assert sum(sizes) < logits.nbytes + 16 * ids.nbytes
    # What it avoids: the derived backward pass keeps float32 exponentials.
    _, derived = jax.vjp(lambda x: jax.nn.log_softmax(x.astype(jnp.float32))[..., 0], logits)
    assert sum(leaf.nbytes for leaf in jax.tree.leaves(derived)) >= 2 * logits.nbytes


def test_a_sharded_vocabulary_stays_sharded():
    mesh = jax.make_mesh((2, 4), ("data", "tensor"), axis_types=(AxisType.Auto,) * 2)
    rows, everything = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in (["data"], ["data", None, "tensor"]))
    random = np.random.default_rng(0)
    logits, ids = random.normal(size=(4, 6, 64)).astype(np.float32), random.integers(0, 64, (4, 6))
    spread = jax.device_put(logits, everything), jax.device_put(ids.astype(np.int32), rows)
    step = jax.jit(jax.value_and_grad(lambda x, i: token_logprobs(x, i).sum()))
    loss, gradient = step(*spread)
    np.testing.assert_allclose(loss, reference.token_logprobs(logits, ids, 1.0).sum(), rtol=1e-6)
    assert gradient.sharding.shard_shape(gradient.shape) == (2, 6, 16)
    assert "all-gather" not in step.lower(*spread).compile().as_text()
