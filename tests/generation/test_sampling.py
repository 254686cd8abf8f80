"""Token choice against brute force: distributions, not shapes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from podium.generation.sampling import Sampling, choose, draws

CHOOSE = jax.jit(choose, static_argnums=(2, 3))


def draw(logits: np.ndarray, sampling: Sampling, count: int = 20_000) -> np.ndarray:
    """Sample `count` tokens from one row of logits; returns frequencies [vocab]."""
    rows = jnp.tile(jnp.asarray(logits, jnp.float32)[None, :], (count, 1))
    ids, _ = CHOOSE(rows, uniform(count, seed=3), sampling, "auto")
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
    ids, logprobs = choose(logits, uniform(2), Sampling(0.0), "auto")
    assert ids.tolist() == [2, 0]
    rows = np.asarray(logits)
    np.testing.assert_allclose(logprobs, np.log([softmax(rows[0])[2], softmax(rows[1])[0]]), atol=1e-6)


def test_log_probability_is_the_policys_not_the_truncated_ones() -> None:
    logits = jnp.asarray([[1.0, 0.5, -0.5, 0.0]])
    ids, logprobs = choose(logits, uniform(1), Sampling(0.7, top_k=1), "auto")
    assert ids.tolist() == [0]
    np.testing.assert_allclose(logprobs, np.log(softmax(np.asarray(logits[0]), 0.7))[:1], atol=1e-6)


def test_greedy_takes_the_first_of_equal_logits_and_survives_a_nan() -> None:
    logits = np.random.default_rng(0).integers(-3, 3, (50, 300)).astype(np.float32)
    logits[0] = -np.inf
    logits[1, 7:] = -np.inf
    ids, _ = CHOOSE(jnp.asarray(logits), uniform(50), Sampling(temperature=0.0), "auto")
    assert np.array_equal(ids, np.argmax(logits, axis=-1))
    logits[3, 5] = np.nan
    ids, logprobs = CHOOSE(jnp.asarray(logits), uniform(50), Sampling(temperature=0.0), "auto")
    assert 0 <= ids[3] < 300 and np.isnan(logprobs[3]), "an id of the vocabulary, beside a number that says it is none"
