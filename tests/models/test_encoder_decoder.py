"""Identities of the encoder-decoder that no other implementation is needed for; parity is in tests/parity."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from podium.models import family
from podium.models.encoder_decoder import position_buckets
from podium.models.text import Text
from support import tiny

PARAMS = tiny.params(config=tiny.T5)
states = jax.jit(family.response_states, static_argnums=0, static_argnames=("lora",))


def text(rows: int, prompt: int = 9, response: int = 7, *, seed: int = 0, shift: int = 0) -> Text:
    """Texts of different lengths, with `shift` more places of padding on each side."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(2, prompt + 1, rows), rng.integers(2, response + 1, rows)
    ids = rng.integers(2, 96, (rows, prompt)), rng.integers(2, 96, (rows, response))
    masks = np.arange(prompt) >= prompt - lengths[0][:, None], np.arange(response) < lengths[1][:, None]
    sides = ((0, 0), (shift, 0)), ((0, 0), (0, shift))
    parts = [
        np.pad(array, side) for pair, side in zip(zip(ids, masks, strict=True), sides, strict=True) for array in pair
    ]
    return Text(*map(jnp.asarray, parts))


def test_padding_and_batch_composition_change_nothing() -> None:
    whole, padded = text(4), text(4, shift=6)
    found = states(tiny.T5, PARAMS, whole)
    real = np.asarray(whole.response_mask)
    np.testing.assert_allclose(states(tiny.T5, PARAMS, padded)[:, :7][real], found[real], rtol=0, atol=5e-5)
    for row in range(4):
        alone = jax.tree.map(lambda x, row=row: x[row : row + 1], whole)
        np.testing.assert_allclose(states(tiny.T5, PARAMS, alone)[0][real[row]], found[row][real[row]], atol=5e-5)


def test_a_state_knows_the_whole_prompt_and_no_later_token_of_the_response() -> None:
    given = text(1)._replace(prompt_mask=jnp.ones((1, 9), bool), response_mask=jnp.ones((1, 7), bool))
    found = states(tiny.T5, PARAMS, given)
    later = states(tiny.T5, PARAMS, given._replace(response_ids=given.response_ids.at[:, 4].add(1)))
    np.testing.assert_array_equal(found[:, :5], later[:, :5])
    assert np.abs(found[:, 5:] - later[:, 5:]).max() > 0.05
    for place in (0, 8):
        asked = states(tiny.T5, PARAMS, given._replace(prompt_ids=given.prompt_ids.at[:, place].add(1)))
        assert np.abs(found[:, 0] - asked[:, 0]).max() > 0.05


@pytest.mark.parametrize("both_ways", [True, False])
def test_near_distances_have_buckets_of_their_own_and_far_ones_share(both_ways: bool) -> None:
    """The definition of the paper's appendix, in plain Python and double precision, away from the edges of buckets."""

    def slow(distance: int) -> int:
        buckets, found = tiny.T5.position_buckets, 0
        if both_ways:
            buckets //= 2
            found = buckets if distance > 0 else 0
            distance = abs(distance)
        else:
            distance = max(-distance, 0)
        exact = buckets // 2
        if distance < exact:
            return found + distance
        scale = math.log(distance / exact) / math.log(tiny.T5.max_distance / exact)
        return found + min(exact + int(scale * (buckets - exact) + 1e-9), buckets - 1)

    distances = np.arange(-300, 301)
    buckets = position_buckets(distances, tiny.T5, both_ways=both_ways)
    assert buckets.tolist() == [slow(int(distance)) for distance in distances]
    assert (buckets.min(), buckets.max()) == (0, 31)


def test_an_encoder_alone_reads_in_both_directions_and_has_no_decoder() -> None:
    config = tiny.T5.replace(encoder_only=True)
    params = tiny.params(config=config)
    assert set(params) == {"embedder", "encoder"}
    given = text(1)._replace(prompt_mask=jnp.ones((1, 9), bool), response_mask=jnp.ones((1, 7), bool))
    score = jax.jit(family.last_states, static_argnums=0)
    found = score(config, params, given)
    for name in ("prompt_ids", "response_ids"):
        changed = given._replace(**{name: getattr(given, name).at[:, 0].add(1)})
        assert np.abs(found - score(config, params, changed)).max() > 0.01
    longer = text(1, shift=5)._replace(
        prompt_mask=jnp.arange(14)[None, :] >= 5, response_mask=jnp.arange(12)[None, :] < 7
    )
    np.testing.assert_allclose(score(config, params, longer), found, rtol=0, atol=5e-5)
