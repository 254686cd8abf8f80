"""podium.losses.preference: the published number, loop twins, ties, slopes, masks and weights."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given

from podium.losses import preference
from support import reference
from support.arrays import batches, ranked

SCORES = np.float32([[0.3, -1.2, 2.1, 0.7], [1.4, 0.2, -0.6, 5.0], [0.1, 0.2, 0.3, 0.4], [9.0, 8.0, 7.0, 6.0]])
RANKS = np.array([[2, 3, 1, 2], [1, 2, 1, 4], [1, 1, 1, 1], [1, 2, 3, 4]], np.int32)
MASK = np.array([[True] * 4, [True, True, True, False], [True, True, False, True], [False, True, False, False]])
LISTS = {"ranked": preference.ranked_pairs_loss, "plackett_luce": preference.plackett_luce_loss}


def test_a_pair_at_difference_one_gives_the_published_number():
    assert preference.pairwise_loss(np.array([1.5]), np.array([0.5])) == pytest.approx(0.313262, abs=1e-6)


@given(batches("chosen rejected margin"))
def test_pairwise_loss_is_the_loop(batch):
    chosen, rejected, margin = (batch[name].ravel() for name in ("chosen", "rejected", "margin"))
    expected = [reference.pair_loss(a - b - m) for a, b, m in zip(chosen, rejected, margin, strict=True)]
    assert float(preference.pairwise_loss(chosen, rejected, margin)) == pytest.approx(np.mean(expected), rel=1e-5)


def test_a_large_difference_neither_overflows_nor_loses_its_gradient():
    loss, gradient = jax.value_and_grad(lambda x: preference.pairwise_loss(x, np.zeros(2)))(np.array([-90.0, 90.0]))
    assert loss == pytest.approx(45)
    np.testing.assert_allclose(gradient, [-0.5, 0], atol=1e-6)


@given(batches("chosen rejected weight"))
def test_weights_make_a_weighted_mean_and_zero_removes_a_pair(batch):
    chosen, rejected, weight = (batch[name].ravel().copy() for name in ("chosen", "rejected", "weight"))
    weight = np.where(batch["mask"].ravel(), np.abs(weight) + 0.1, 0).astype(np.float32)
    chosen[weight == 0] = np.nan
    kept = [i for i in range(len(weight)) if weight[i] > 0]
    losses = [weight[i] * reference.pair_loss(float(chosen[i] - rejected[i])) for i in kept]
    expected = sum(losses) / sum(weight[i] for i in kept) if kept else 0.0
    value, gradient = jax.value_and_grad(lambda x: preference.pairwise_loss(x, rejected, weight=weight))(chosen)
    assert float(value) == pytest.approx(float(expected), rel=1e-5)
    assert np.isfinite(gradient).all()
    assert not np.asarray(gradient)[weight == 0].any()


def test_a_boolean_weight_is_a_mask():
    scores = np.array([1.0, 5.0])
    loss = preference.pairwise_loss(scores, np.zeros(2), weight=np.array([True, False]))
    assert loss == pytest.approx(0.313262, abs=1e-6)


@given(ranked())
def test_ranked_pairs_loss_is_the_loop(lists):
    margin = np.linspace(-0.5, 0.75, len(lists["scores"]), dtype=np.float32)
    expected = reference.ranked_pairs_loss(**lists, margin=margin)
    assert float(preference.ranked_pairs_loss(**lists, margin=margin)) == pytest.approx(expected, rel=1e-5, abs=1e-6)


@given(ranked())
def test_plackett_luce_loss_is_the_loop(lists):
    expected = reference.plackett_luce_loss(**lists)
    assert float(preference.plackett_luce_loss(**lists)) == pytest.approx(expected, rel=1e-5, abs=1e-5)


@given(ranked())
def test_centering_loss_is_the_loop(lists):
    expected = reference.centering_loss(lists["scores"], lists["mask"])
    loss = float(preference.centering_loss(lists["scores"], lists["mask"]))
    assert loss == pytest.approx(expected, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("loss", LISTS.values(), ids=LISTS)
def test_two_candidates_are_a_pair(loss):
    scores, ranks = np.array([[1.5, 0.5], [-0.3, 1.1]], np.float32), np.array([[1, 2], [2, 1]])
    pair = preference.pairwise_loss(np.array([1.5, 1.1]), np.array([0.5, -0.3]))
    assert loss(scores, ranks, np.ones((2, 2), bool)) == pytest.approx(float(pair), rel=1e-6)


def test_every_list_counts_once_however_long():
    # Pooling the pairs would give the list of four six times the say of the pair.
    scores = np.array([[3.0, 2.0, 1.0, 0.0], [0.0, 1.0, 0.0, 0.0]], np.float32)
    mask = np.array([[True] * 4, [True, True, False, False]])
    of_four, of_two = (
        preference.ranked_pairs_loss(scores[r : r + 1], np.array([[1, 2, 3, 4]]), mask[r : r + 1]) for r in (0, 1)
    )
    both = preference.ranked_pairs_loss(scores, np.array([[1, 2, 3, 4]] * 2), mask)
    assert both == pytest.approx(float(of_four + of_two) / 2, rel=1e-6)


def test_plackett_luce_probabilities_of_all_orders_sum_to_one():
    scores = np.array([[0.3, -1.2, 2.1, 0.7]], np.float32)
    orders = [np.array([order]) for order in itertools.permutations([1, 2, 3, 4])]
    losses = [float(preference.plackett_luce_loss(scores, order, np.ones((1, 4), bool))) for order in orders]
    assert sum(math.exp(-loss) for loss in losses) == pytest.approx(1, rel=1e-5)


@pytest.mark.parametrize("loss", LISTS.values(), ids=LISTS)
def test_the_order_of_the_array_makes_no_difference(loss):
    shuffle = np.array([2, 0, 3, 1])
    same = loss(SCORES[:, shuffle], RANKS[:, shuffle], MASK[:, shuffle])
    assert float(same) == pytest.approx(float(loss(SCORES, RANKS, MASK)), rel=1e-6)


def test_efron_ties_have_their_closed_form_and_draw_scores_together():
    scores, ranks = np.array([[1.0, 0.0, -1.0]], np.float32), np.array([[1, 1, 2]])
    one, e, rest = 1.0, math.e, math.exp(-1)
    expected = math.log(e + one + rest) + math.log((e + one) / 2 + rest) - 1
    mask = np.ones((1, 3), bool)
    assert float(preference.plackett_luce_loss(scores, ranks, mask)) == pytest.approx(expected, rel=1e-6)
    gradient = jax.grad(preference.plackett_luce_loss)(scores, ranks, mask)
    assert gradient[0, 0] > gradient[0, 1]
    level = jax.grad(preference.plackett_luce_loss)(np.zeros((1, 3), np.float32), np.ones((1, 3), int), mask)
    np.testing.assert_allclose(level, np.zeros((1, 3)), atol=1e-6)


@pytest.mark.parametrize("name", LISTS)
def test_the_gradient_of_a_list_loss_is_the_slope(name):
    twin = {
        "ranked": lambda x: reference.ranked_pairs_loss(x, RANKS, MASK, np.zeros(4)),
        "plackett_luce": lambda x: reference.plackett_luce_loss(x, RANKS, MASK),
    }[name]
    gradient = jax.grad(LISTS[name])(SCORES, RANKS, MASK)
    np.testing.assert_allclose(gradient, reference.slope(twin, SCORES), rtol=1e-4, atol=1e-6)


def test_the_gradient_of_the_centering_loss_is_the_slope():
    gradient = jax.grad(preference.centering_loss)(SCORES, MASK)
    slope = reference.slope(lambda x: reference.centering_loss(x, MASK), SCORES)
    np.testing.assert_allclose(gradient, slope, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", LISTS)
@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_nothing_leaks_from_masked_candidates(name, poison):
    both = jax.value_and_grad(lambda x: LISTS[name](x, RANKS, MASK) + preference.centering_loss(x, MASK))
    clean, dirty = (both(np.where(MASK, SCORES, other).astype(np.float32)) for other in (0, poison))
    assert np.isfinite(clean[0]) and clean[0] == dirty[0]
    np.testing.assert_array_equal(clean[1], dirty[1])
    assert not np.asarray(dirty[1])[~MASK].any()


@pytest.mark.parametrize("name", LISTS)
def test_padding_makes_no_nan_even_in_between(name):
    # One that is dropped later harms no result, but stops whoever hunts a real one with jax_debug_nans.
    with jax.debug_nans(True):
        gradient = jax.grad(LISTS[name])(SCORES, RANKS, MASK)
    assert np.asarray(gradient)[MASK].any()


@pytest.mark.parametrize("name", LISTS)
def test_padding_changes_nothing(name):
    sliced = LISTS[name](SCORES[1:2, :3], RANKS[1:2, :3], np.ones((1, 3), bool))
    assert float(LISTS[name](SCORES[1:2], RANKS[1:2], MASK[1:2])) == pytest.approx(float(sliced), rel=1e-6)


@pytest.mark.parametrize("name", LISTS)
def test_lists_without_a_comparison_leave_the_mean(name):
    # A single candidate, and an empty row: counting them would halve the loss.
    scores = np.concatenate([SCORES[:1], SCORES[3:]])
    mask = np.concatenate([MASK[:1], MASK[3:]])
    alone = LISTS[name](SCORES[:1], RANKS[:1], MASK[:1])
    assert LISTS[name](scores, RANKS[[0, 3]], mask) == alone
    nothing = np.zeros((2, 4), bool)
    loss, gradient = jax.value_and_grad(LISTS[name])(np.full((2, 4), np.nan, np.float32), RANKS[:2], nothing)
    assert loss == 0
    assert not np.asarray(gradient).any()


@pytest.mark.parametrize("name", LISTS)
def test_list_weights_make_a_weighted_mean(name):
    first, second = (LISTS[name](SCORES[r : r + 1], RANKS[r : r + 1], MASK[r : r + 1]) for r in (0, 1))
    weighted = LISTS[name](SCORES[:2], RANKS[:2], MASK[:2], weight=np.array([0.5, 1.5], np.float32))
    assert float(weighted) == pytest.approx(float(0.25 * first + 0.75 * second), rel=1e-6)


def test_losses_are_float32_whatever_comes_in():
    halves = jnp.asarray(SCORES, jnp.bfloat16)
    results = [loss(halves, RANKS, MASK) for loss in LISTS.values()]
    results += [preference.pairwise_loss(halves[0], halves[1]), preference.centering_loss(halves, MASK)]
    assert {result.dtype for result in results} == {jnp.dtype("float32")}
