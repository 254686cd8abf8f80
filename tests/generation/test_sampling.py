"""Token choice against brute force: distributions, not shapes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from podium.generation.sampling import Sampling, choose, draws, inverse_cdf

CHOOSE = jax.jit(choose, static_argnums=2)


def draw(logits: np.ndarray, sampling: Sampling, count: int = 20_000) -> np.ndarray:
    """Sample `count` tokens from one row of logits; returns frequencies [vocab]."""
    rows = jnp.tile(jnp.asarray(logits, jnp.float32)[None, :], (count, 1))
    ids, _ = CHOOSE(rows, uniform(count, seed=3), sampling)
    return np.bincount(np.asarray(ids), minlength=len(logits)) / count


def uniform(count: int, seed: int = 0) -> jax.Array:
    return draws(jax.random.split(jax.random.key(seed), count), 1)[0]


def softmax(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    exps = np.exp(logits / temperature - np.max(logits / temperature))
    return exps / exps.sum()


def test_a_rows_draws_are_its_own() -> None:
    """Whatever other rows there are, and however many tokens are wanted."""
    keys = jax.random.split(jax.random.key(5), 40)
    many = draws(keys, 50)
    assert np.array_equal(draws(keys[7:9], 20), many[:20, 7:9])
    assert len(np.unique(many)) > 1990 and np.all(many >= 0) and np.all(many < 1)
    # Five standard errors of a mean of 2000.
    assert abs(np.mean(many) - 0.5) < 5 / np.sqrt(12 * 2000)


@given(seed=st.integers(0, 10_000), vocab=st.sampled_from([5, 256, 257, 1000, 2 * 211]), scale=st.sampled_from([1, 30]))
def test_inverse_cdf_is_a_search_in_the_cumulative_sum(seed: int, vocab: int, scale: int) -> None:
    """Vocabularies of less than a block, of whole blocks, with a remainder; weights may add up to anything."""
    rng = np.random.default_rng(seed)
    weights = scale * softmax(rng.normal(0, 3, vocab)).astype(np.float32)
    shares = rng.uniform(0, 1, 50).astype(np.float32)
    found = np.asarray(inverse_cdf(jnp.tile(weights[None], (50, 1)), jnp.asarray(shares)))
    cumulative = np.cumsum(weights.astype(np.float64))
    expected = np.searchsorted(cumulative, shares.astype(np.float64) * cumulative[-1], side="right")
    # float32 and float64 sums may disagree about a draw that falls on a boundary, and then by one token.
    assert np.all(np.abs(found - expected) <= 1)
    assert np.mean(found != expected) <= 0.02


def test_inverse_cdf_never_picks_a_token_without_probability() -> None:
    probabilities = np.zeros((3, 600), np.float32)
    probabilities[:, [100, 300]] = [0.25, 0.75]
    found = np.asarray(inverse_cdf(jnp.asarray(probabilities), jnp.asarray([0.0, 0.25, np.float32(1 - 2**-24)])))
    assert found.tolist() == [100, 300, 300]


def test_inverse_cdf_never_leaves_the_weights_of_a_block_by_rounding() -> None:
    """Draws just below the end of a block, whose last tokens have no weight."""
    rng = np.random.default_rng(0)
    weights = rng.exponential(size=(2000, 4, 256)).astype(np.float32) ** 3
    weights[:, :, 200:] = 0
    ends = np.cumsum(weights.sum(axis=-1), axis=-1, dtype=np.float32)
    share = ends[np.arange(2000), rng.integers(0, 4, 2000)] / ends[:, -1]
    rows = jnp.asarray(weights.reshape(2000, -1))
    found = np.asarray(inverse_cdf(rows, jnp.asarray(np.nextafter(share, np.float32(0)))))
    assert np.all(rows[np.arange(2000), found] > 0)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_frequencies_are_the_softmax_at_the_temperature(temperature: float) -> None:
    logits = np.array([0.3, -1.2, 2.0, 0.0, 1.1])
    frequencies = draw(logits, Sampling(temperature))
    # Five standard errors of a frequency of 20,000 draws.
    assert np.abs(frequencies - softmax(logits, temperature)).max() < 5 * 0.5 / np.sqrt(20_000)


def test_top_k_keeps_the_k_likeliest() -> None:
    logits = np.array([0.3, -1.2, 2.0, 0.0, 1.1])
    frequencies = draw(logits, Sampling(1.0, top_k=2))
    expected = np.where(np.isin(np.arange(5), [2, 4]), softmax(logits), 0)
    assert np.abs(frequencies - expected / expected.sum()).max() < 0.018
    assert frequencies[[0, 1, 3]].sum() == 0


@pytest.mark.parametrize("top_p", [0.1, 0.5, 0.9])
def test_top_p_keeps_the_smallest_likeliest_set(top_p: float) -> None:
    for seed in range(5):
        logits = np.random.default_rng(seed).normal(0, 2, 40)
        probabilities = softmax(logits)
        order = np.argsort(-probabilities)
        needed = int(np.searchsorted(np.cumsum(probabilities[order]), top_p)) + 1
        kept = set(np.flatnonzero(draw(logits, Sampling(1.0, top_p=top_p), count=3000) > 0))
        assert kept <= set(order[:needed])
        assert {int(token) for token in order[:needed] if probabilities[token] > 0.01} <= kept


def test_greedy_takes_the_likeliest_and_reports_its_log_probability() -> None:
    logits = jnp.asarray([[0.3, -1.2, 2.0], [4.0, 1.0, -2.0]])
    ids, logprobs = choose(logits, uniform(2), Sampling(0.0))
    assert ids.tolist() == [2, 0]
    rows = np.asarray(logits)
    np.testing.assert_allclose(logprobs, np.log([softmax(rows[0])[2], softmax(rows[1])[0]]), atol=1e-6)


def test_log_probability_is_the_policys_not_the_truncated_ones() -> None:
    logits = jnp.asarray([[1.0, 0.5, -0.5, 0.0]])
    ids, logprobs = choose(logits, uniform(1), Sampling(0.7, top_k=1))
    assert ids.tolist() == [0]
    np.testing.assert_allclose(logprobs, np.log(softmax(np.asarray(logits[0]), 0.7))[:1], atol=1e-6)


def test_greedy_takes_the_first_of_equal_logits_and_survives_a_nan() -> None:
    logits = np.random.default_rng(0).integers(-3, 3, (50, 300)).astype(np.float32)
    logits[0] = -np.inf
    logits[1, 7:] = -np.inf
    ids, _ = CHOOSE(jnp.asarray(logits), uniform(50), Sampling(temperature=0.0))
    assert np.array_equal(ids, np.argmax(logits, axis=-1))
    logits[3, 5] = np.nan
    ids, logprobs = CHOOSE(jnp.asarray(logits), uniform(50), Sampling(temperature=0.0))
    assert 0 <= ids[3] < 300 and np.isnan(logprobs[3]), "an id of the vocabulary, beside a number that says it is none"
