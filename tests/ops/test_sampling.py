"""The search in a cumulative distribution, by both implementations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from podium.ops.sampling import inverse_cdf

IMPLEMENTATIONS = pytest.mark.parametrize("implementation", ["cpu", "reference"])


@IMPLEMENTATIONS
@given(seed=st.integers(0, 10_000), vocab=st.sampled_from([5, 256, 257, 1000, 2 * 211]), scale=st.sampled_from([1, 30]))
def test_inverse_cdf_is_a_search_in_the_cumulative_sum(implementation, seed: int, vocab: int, scale: int) -> None:
    """Vocabularies of less than a block, of whole blocks, with a remainder; weights may add up to anything."""
    rng = np.random.default_rng(seed)
    weights = scale * np.asarray(jax.nn.softmax(rng.normal(0, 3, vocab).astype(np.float32)))
    shares = rng.uniform(0, 1, 50).astype(np.float32)
    chosen = np.asarray(inverse_cdf(jnp.tile(weights[None], (50, 1)), jnp.asarray(shares), implementation))
    cumulative = np.cumsum(weights.astype(np.float64))
    expected = np.searchsorted(cumulative, shares.astype(np.float64) * cumulative[-1], side="right")
    # float32 and float64 sums may disagree about a draw that falls on a boundary, and then by one token.
    assert np.all(np.abs(chosen - expected) <= 1)
    assert np.mean(chosen != expected) <= 0.02


@IMPLEMENTATIONS
def test_inverse_cdf_never_picks_a_token_without_probability(implementation) -> None:
    probabilities = np.zeros((3, 600), np.float32)
    probabilities[:, [100, 300]] = [0.25, 0.75]
    chosen = np.asarray(
        inverse_cdf(jnp.asarray(probabilities), jnp.asarray([0.0, 0.25, np.float32(1 - 2**-24)]), implementation)
    )
    assert chosen.tolist() == [100, 300, 300]


@IMPLEMENTATIONS
def test_inverse_cdf_never_leaves_the_weights_of_a_block_by_rounding(implementation) -> None:
    """Draws just below the end of a block, whose last tokens have no weight."""
    rng = np.random.default_rng(0)
    weights = rng.exponential(size=(2000, 4, 256)).astype(np.float32) ** 3
    weights[:, :, 200:] = 0
    ends = np.cumsum(weights.sum(axis=-1), axis=-1, dtype=np.float32)
    share = ends[np.arange(2000), rng.integers(0, 4, 2000)] / ends[:, -1]
    rows = jnp.asarray(weights.reshape(2000, -1))
    chosen = np.asarray(inverse_cdf(rows, jnp.asarray(np.nextafter(share, np.float32(0))), implementation))
    assert np.all(rows[np.arange(2000), chosen] > 0)
