"""podium.losses.masked against loops, at its edges, and on eight devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from podium.losses import masked
from support import reference
from support.arrays import batches, floats, masks

NINE = np.array([[1.2, 1.3, 1.4], [1.5, 1.6, 1.7], [1.8, 1.9, 2.0]], np.float32)


@pytest.mark.parametrize(("ddof", "row"), [(0, [0.0508, 0.4381, 0.8254]), (1, [0.1394, 0.5046, 0.8697])])
def test_whiten_gives_the_published_numbers(ddof, row):
    whitened = masked.whiten(NINE, np.ones((3, 3), bool), shift_mean=False, ddof=ddof)
    np.testing.assert_allclose(whitened[0], row, atol=5e-5)


@given(batches("x"))
def test_mean_is_the_loop(batch):
    np.testing.assert_allclose(masked.mean(**batch), reference.mean(**batch), rtol=1e-6, atol=1e-6)


# Values on a coarse grid: where the true variance is rounding noise, dividing by it magnifies float32 error at will.
@given(batches("x", bound=3.0), st.booleans(), st.integers(0, 1))
def test_whiten_is_the_loop(batch, shift_mean, ddof):
    batch["x"] = np.round(batch["x"] * 4) / 4
    whitened = masked.whiten(batch["x"], batch["mask"], shift_mean=shift_mean, ddof=ddof)
    expected = reference.whiten(batch["x"], batch["mask"], shift_mean, ddof)
    np.testing.assert_allclose(whitened, expected, rtol=1e-5, atol=1e-5)


@given(masks((3, 5)))
def test_last_is_the_last_true_place(mask):
    expected = np.zeros_like(mask)
    for row in range(3):
        if mask[row].any():
            expected[row, max(np.nonzero(mask[row])[0])] = True
    np.testing.assert_array_equal(masked.last(mask), expected)


def test_an_empty_mask_gives_zeros_and_finite_gradients():
    nothing = np.zeros((3, 3), bool)
    poison = np.full((3, 3), np.nan, np.float32)
    assert masked.mean(poison, nothing) == 0
    assert masked.variance(poison, nothing, ddof=1) == 0
    np.testing.assert_array_equal(masked.whiten(poison, nothing), np.zeros((3, 3)))
    np.testing.assert_array_equal(jax.grad(lambda x: masked.whiten(x, nothing).sum())(poison), np.zeros((3, 3)))


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_nothing_leaks_from_masked_positions(poison):
    mask = np.array([[True, False, True], [False, True, True], [True, True, False]])
    dirty = np.where(mask, NINE, poison).astype(np.float32)

    def total(x):
        return (masked.whiten(x, mask, ddof=1) * jnp.arange(9.0).reshape(3, 3)).sum() + masked.mean(x, mask)

    assert total(dirty) == total(jnp.where(mask, NINE, 0.0))
    gradient = jax.grad(total)(dirty)
    np.testing.assert_array_equal(gradient, jax.grad(total)(np.where(mask, NINE, 0).astype(np.float32)))
    assert not gradient[~mask].any()


@given(floats((4, 6)))
def test_one_value_whitens_to_zero_without_blowing_up(x):
    mask = np.zeros((4, 6), bool)
    mask[2, 3] = True
    np.testing.assert_allclose(masked.whiten(x, mask, ddof=1), np.zeros((4, 6)), atol=1e-6)


def test_reductions_are_float32_whatever_comes_in():
    # In bfloat16 the running sum of 4096 ones stops growing at 256.
    ones = jnp.ones((64, 64), jnp.bfloat16)
    assert masked.mean(ones, jnp.ones((64, 64), bool)) == 1
    assert masked.mean(ones, jnp.ones((64, 64), bool)).dtype == jnp.float32
    assert masked.whiten(ones, jnp.ones((64, 64), bool)).dtype == jnp.float32
    assert masked.mean(jnp.array([3, 4]), jnp.array([True, True])) == 3.5


def test_micro_batches_with_the_total_add_up_to_the_batch():
    mask = np.array([[True, True, True], [False, True, False], [False, False, False]])
    parts = [masked.mean(NINE[row : row + 1], mask[row : row + 1], total=mask.sum()) for row in range(3)]
    np.testing.assert_allclose(sum(parts), masked.mean(NINE, mask), rtol=1e-6)
    # The likely bug, a mean of means, is far from it.
    assert abs(np.mean([masked.mean(NINE[row : row + 1], mask[row : row + 1]) for row in range(3)]) - sum(parts)) > 0.1


def test_whiten_takes_the_moments_of_the_global_batch():
    x = np.random.default_rng(0).normal(size=(8, 5)).astype(np.float32)
    mask = np.arange(5) < np.array([[5], [1], [3], [0], [2], [5], [4], [2]])
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    rows = NamedSharding(mesh, PartitionSpec("data"))
    spread = jax.jit(masked.whiten, out_shardings=rows)(*(jax.device_put(array, rows) for array in (x, mask)))
    assert len(spread.sharding.device_set) == 8
    np.testing.assert_allclose(spread, reference.whiten(x, mask, True, 0), rtol=1e-5, atol=1e-6)
