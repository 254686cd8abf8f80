"""podium.losses.ppo: published numbers, loop twins, slopes, masks, the KL controller."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from podium.losses import masked, ppo
from support import reference
from support.arrays import batches, floats

THREE = np.ones(3, bool)
KINDS = st.sampled_from(["k1", "k2", "k3"])
CLOSE = {"rtol": 1e-5, "atol": 1e-5}
REWARDS = np.array([[0, -0.01, 0.02, 0, 1], [0.03, -0.02, 0.5, 0, 0]], np.float32)
VALUES = np.array([[0.1, 0.2, 0.3, 0.4, 0.5], [0.2, 0.1, -0.1, 0, 0]], np.float32)
REAL = np.arange(5) < np.array([[5], [3]])


def test_gae_gives_the_published_numbers():
    advantages, returns = ppo.gae(REWARDS, VALUES, REAL, gamma=1.0, gae_lambda=0.95)
    np.testing.assert_allclose(returns[0], [0.88679, 0.92294, 0.96625, 0.975, 1.0], atol=1e-5)
    np.testing.assert_allclose(returns[1, :3], [0.4625, 0.45, 0.5], atol=1e-6)
    white = masked.whiten(advantages, REAL, ddof=1)
    np.testing.assert_allclose(white[0], [1.27011, 0.91574, 0.60113, 0.09471, -0.32153], atol=1e-5)
    np.testing.assert_allclose(white[1], [-1.63961, -1.154, 0.23345, 0, 0], atol=1e-5)


def test_the_losses_give_the_published_numbers():
    policy, stats = ppo.policy_loss(
        np.array([-1.0, -2, -3]), np.array([-1.5, -1.9, -3]), np.array([1.0, -1, 2]), THREE, clip_range=0.2
    )
    assert policy == pytest.approx(-0.765054, abs=1e-6)
    assert stats.clipfrac == pytest.approx(1 / 3)
    value, _ = ppo.value_loss(
        np.array([0.5, 1.2, -0.3]), np.array([0.1, 1.1, -0.9]), np.array([0.2, 2, -0.4]), THREE, clip_range=0.2
    )
    assert value == pytest.approx(0.136667, abs=1e-6)


@pytest.mark.parametrize(("kind", "expected"), [("k1", 0.5), ("k2", 0.125), ("k3", 0.106531)])
def test_kl_estimates_give_the_published_numbers(kind, expected):
    assert ppo.kl_estimate(-1.0, -1.5, kind=kind) == pytest.approx(expected, abs=1e-6)


def test_an_unknown_estimator_is_refused():
    with pytest.raises(ValueError, match=r"k1.*k2.*k3.*'k4'"):
        ppo.kl_estimate(-1.0, -1.5, kind="k4")


def test_the_estimators_estimate_the_divergence():
    # Exact expectations over a distribution of four tokens: k1 and k3 are unbiased, k2 is only close.
    p, q = np.array([0.5, 0.3, 0.15, 0.05]), np.array([0.4, 0.3, 0.2, 0.1])
    exact = (p * np.log(p / q)).sum()
    k1, k2, k3 = (float((p * ppo.kl_estimate(np.log(p), np.log(q), kind=kind)).sum()) for kind in ("k1", "k2", "k3"))
    assert k1 == pytest.approx(exact, abs=1e-6)
    assert k3 == pytest.approx(exact, abs=1e-6)
    assert 1e-3 < abs(k2 - exact) < 0.2 * exact


@given(batches("logprobs ref_logprobs"), st.data(), KINDS)
def test_token_rewards_are_the_loop(batch, data, kind):
    scores = data.draw(floats((len(batch["mask"]),)))
    expected = reference.token_rewards(
        scores, batch["logprobs"], batch["ref_logprobs"], batch["mask"], kl_coef=0.3, kind=kind
    )
    result = ppo.token_rewards(scores, **batch, kl_coef=0.3, kind=kind)
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-5)


def test_the_score_keeps_its_fraction_and_its_place():
    # A reward buffer of the ids' type would truncate 0.7 to 0; one indexed by length - 1 would miss left padding.
    zeros = np.zeros((3, 4), np.float32)
    mask = np.array([[True, True, False, False], [False, False, True, True], [False] * 4])
    rewards = ppo.token_rewards(np.array([0.7, -0.3, 9.0]), zeros, zeros, mask, kl_coef=0.1)
    np.testing.assert_allclose(rewards, [[0, 0.7, 0, 0], [0, 0, 0, -0.3], [0] * 4], rtol=1e-6)


@given(batches("rewards values"), st.sampled_from([1.0, 0.9]), st.sampled_from([1.0, 0.95, 0.0]))
def test_gae_is_the_sum_of_its_definition(batch, gamma, gae_lambda):
    result = ppo.gae(**batch, gamma=gamma, gae_lambda=gae_lambda)
    expected = reference.gae(**batch, gamma=gamma, gae_lambda=gae_lambda)
    np.testing.assert_allclose(result.advantages, expected[0], **CLOSE)
    np.testing.assert_allclose(result.returns, expected[1], **CLOSE)


@given(batches("rewards values"))
def test_with_lambda_one_the_return_is_the_sum_of_rewards_to_come(batch):
    returns = ppo.gae(**batch, gamma=1.0, gae_lambda=1.0).returns
    real = np.where(batch["mask"], batch["rewards"], 0)
    np.testing.assert_allclose(returns, np.where(batch["mask"], real[:, ::-1].cumsum(1)[:, ::-1], 0), **CLOSE)


@given(batches("logprobs old_logprobs advantages"))
def test_policy_loss_is_the_loop(batch):
    loss, stats = ppo.policy_loss(**batch, clip_range=0.2)
    expected = reference.policy_loss(*batch.values(), clip_range=0.2)
    # Ratios up to exp(6), squared in ratio_var; at a ratio on the clip edge the two floats may fall on either side.
    assume(all(abs(abs(d) - edge) > 1e-6 for d in ratios(batch) for edge in (0.2,)))
    for name in expected:
        value = loss if name == "loss" else getattr(stats, name)
        np.testing.assert_allclose(value, expected[name], rtol=2e-5, atol=1e-5, err_msg=name)


def ratios(batch):
    return (np.exp(np.float64(batch["logprobs"]) - np.float64(batch["old_logprobs"])) - 1).ravel()


@given(batches("values old_values returns"))
def test_value_loss_is_the_loop(batch):
    loss, stats = ppo.value_loss(**batch, clip_range=0.2)
    expected = reference.value_loss(*batch.values(), clip_range=0.2)
    assert float(loss) == pytest.approx(expected["loss"], rel=1e-5, abs=1e-6)
    assert float(stats.error) == pytest.approx(expected["error"], rel=1e-5, abs=1e-6)


def test_value_clipfrac_counts_only_where_clipping_made_it_worse():
    # Row one: beyond the range and away from the target. Row two: beyond it, but clipping helps. Row three: within.
    values, returns = np.array([1.0, 1.0, 0.1]), np.array([1.0, 0.0, 0.5])
    _, stats = ppo.value_loss(values, np.zeros(3), returns, THREE, clip_range=0.2)
    assert stats.clipfrac == pytest.approx(1 / 3)


# Rows chosen off the kinks, where a slope exists: both signs of advantage, inside and outside the range, one masked.
NEW = np.array([[-1.0, -2.0, -3.0, -0.5], [-1.2, -0.1, -2.2, -4.0]], np.float32)
OLD = np.array([[-1.5, -1.9, -3.05, -0.1], [-1.25, -0.7, -2.05, -4.0]], np.float32)
GAIN = np.array([[1.3, -1.1, 2.0, -0.7], [-0.4, -2.5, 0.9, 8.0]], np.float32)
KEEP = np.array([[True, True, True, True], [True, True, True, False]])


def test_the_gradient_of_the_policy_loss_is_the_slope():
    gradient = jax.grad(lambda x: ppo.policy_loss(x, OLD, GAIN, KEEP, clip_range=0.2)[0])(NEW)
    slope = reference.slope(lambda x: reference.policy_loss(x, OLD, GAIN, KEEP, 0.2)["loss"], NEW)
    np.testing.assert_allclose(gradient, slope, rtol=1e-4, atol=1e-6)
    # Ratio 1.65 with a positive advantage is clipped away; ratio 1.82 with a negative one is not.
    assert gradient[0, 0] == 0
    assert gradient[1, 1] > 0


def test_the_gradient_of_the_value_loss_is_the_slope():
    gradient = jax.grad(lambda x: ppo.value_loss(x, OLD, GAIN, KEEP, clip_range=0.2)[0])(NEW)
    slope = reference.slope(lambda x: reference.value_loss(x, OLD, GAIN, KEEP, 0.2)["loss"], NEW)
    np.testing.assert_allclose(gradient, slope, rtol=1e-4, atol=1e-6)
    assert (gradient[KEEP] == 0).any() and (gradient[KEEP] != 0).any()


def test_before_the_first_update_the_ratio_is_exactly_one():
    loss, stats = ppo.policy_loss(NEW, NEW, GAIN, KEEP, clip_range=0.2)
    assert (stats.ratio, stats.ratio_var, stats.approxkl, stats.clipfrac) == (1, 0, 0, 0)
    assert float(loss) == pytest.approx(-reference.mean(GAIN, KEEP), rel=1e-6)


def everything(x, y, z, mask):
    """Return one number that depends on every function and every argument."""
    rewards = ppo.token_rewards(jnp.where(mask[:, 0], x[:, 0], 0.0), x, y, mask, kl_coef=0.2, kind="k3")
    advantages, returns = ppo.gae(rewards, z, mask, gamma=0.99, gae_lambda=0.9)
    policy, _ = ppo.policy_loss(x, y, advantages, mask, clip_range=0.2)
    value, _ = ppo.value_loss(z, y, returns, mask, clip_range=0.2)
    return policy + value


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_nothing_leaks_from_masked_positions(poison):
    clean = [np.where(KEEP, array, 0).astype(np.float32) for array in (NEW, OLD, GAIN)]
    dirty = [np.where(KEEP, array, poison).astype(np.float32) for array in (NEW, OLD, GAIN)]
    both = jax.value_and_grad(everything, argnums=(0, 1, 2))
    expected, result = both(*clean, KEEP), both(*dirty, KEEP)
    assert np.isfinite(expected[0]) and expected[0] != 0
    assert result[0] == expected[0]
    for ours, theirs in zip(result[1], expected[1], strict=True):
        np.testing.assert_array_equal(ours, theirs)
        assert not ours[~KEEP].any()


def test_masked_equals_sliced():
    padded = [np.pad(array[:, :3], ((0, 0), (2, 1)), constant_values=7) for array in (NEW, OLD, GAIN)]
    mask = np.pad(np.ones((2, 3), bool), ((0, 0), (2, 1)))
    whole = everything(*(array[:, :3] for array in (NEW, OLD, GAIN)), np.ones((2, 3), bool))
    scores = NEW[:, 0]
    rewards = ppo.token_rewards(scores, padded[0], padded[1], mask, kl_coef=0.2, kind="k3")
    advantages, returns = ppo.gae(rewards, padded[2], mask, gamma=0.99, gae_lambda=0.9)
    policy, _ = ppo.policy_loss(padded[0], padded[1], advantages, mask, clip_range=0.2)
    value, _ = ppo.value_loss(padded[2], padded[1], returns, mask, clip_range=0.2)
    assert float(policy + value) == pytest.approx(float(whole), rel=1e-6)


def test_a_batch_without_tokens_is_zero_with_zero_gradients():
    poison, nothing = np.full((2, 4), np.nan, np.float32), np.zeros((2, 4), bool)
    result, gradients = jax.value_and_grad(everything, argnums=(0, 1, 2))(poison, poison, poison, nothing)
    assert result == 0
    assert not any(np.asarray(gradient).any() for gradient in gradients)


@pytest.mark.parametrize("gap", [200.0, -200.0])
def test_an_absurd_ratio_keeps_the_gradient_finite(gap):
    logprobs, old = np.array([[gap, -1.0]], np.float32), np.array([[0.0, -1.0]], np.float32)
    for advantage in (1.0, -1.0):
        advantages = np.array([[advantage, 1.0]], np.float32)
        loss, gradient = jax.value_and_grad(
            lambda x, a=advantages: ppo.policy_loss(x, old, a, np.ones((1, 2), bool), clip_range=0.2)[0]
        )(logprobs)
        assert np.isfinite(loss)
        assert np.isfinite(gradient).all()


def test_micro_batches_with_the_total_add_up_to_the_batch():
    whole = jax.value_and_grad(lambda x: ppo.policy_loss(x, OLD, GAIN, KEEP, clip_range=0.2)[0])(NEW)
    parts = [
        jax.value_and_grad(
            lambda x, r=row: ppo.policy_loss(x, OLD[r], GAIN[r], KEEP[r], clip_range=0.2, total=KEEP.sum())[0]
        )(NEW[row])
        for row in range(2)
    ]
    np.testing.assert_allclose(sum(loss for loss, _ in parts), whole[0], rtol=1e-6)
    np.testing.assert_allclose(np.stack([gradient for _, gradient in parts]), whole[1], rtol=1e-6)
    values = [ppo.value_loss(NEW[r], OLD[r], GAIN[r], KEEP[r], clip_range=0.2, total=7)[0] for r in range(2)]
    np.testing.assert_allclose(sum(values), ppo.value_loss(NEW, OLD, GAIN, KEEP, clip_range=0.2)[0], rtol=1e-6)


def test_low_precision_inputs_are_reduced_in_float32():
    halves = [jnp.asarray(array, jnp.bfloat16) for array in (NEW, OLD, GAIN)]
    loss, stats = ppo.policy_loss(*halves, KEEP, clip_range=0.2)
    exact = [np.asarray(array.astype(jnp.float32)) for array in halves]
    assert float(loss) == pytest.approx(reference.policy_loss(*exact, KEEP, 0.2)["loss"], rel=1e-6)
    results = [loss, *stats, *ppo.gae(halves[0], halves[1], KEEP, gamma=1.0, gae_lambda=0.95)]
    results += ppo.value_loss(*halves, KEEP, clip_range=0.2)[1]
    results += [ppo.token_rewards(halves[0][:, 0], halves[0], halves[1], KEEP, kl_coef=0.1)]
    assert {result.dtype for result in results} == {jnp.dtype("float32")}


def test_one_device_equals_eight():
    random = np.random.default_rng(0)
    x, y, z = (random.normal(size=(16, 6)).astype(np.float32) for _ in range(3))
    mask = np.arange(6) < random.integers(0, 7, (16, 1))
    rows = NamedSharding(jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,)), PartitionSpec("data"))
    spread = [jax.device_put(array, rows) for array in (x, y, z, mask)]
    step = jax.jit(jax.value_and_grad(everything))
    loss, gradient = step(*spread)
    assert len(gradient.sharding.device_set) == 8
    alone = step(x, y, z, mask)
    np.testing.assert_allclose(loss, alone[0], rtol=1e-6)
    np.testing.assert_allclose(gradient, alone[1], rtol=1e-5, atol=1e-7)


def test_adaptive_kl_gives_the_published_number():
    controller = ppo.AdaptiveKL(0.15, target=6, horizon=10000)
    assert controller.update(12, 256) == pytest.approx(0.150768, abs=1e-6)
    assert jax.jit(lambda c, kl: c.update(kl, 256))(controller, 12.0) == pytest.approx(0.150768, abs=1e-6)


@given(st.floats(0.01, 1), st.floats(-1, 30), st.integers(1, 512))
def test_the_controller_moves_toward_its_target_and_never_by_more_than_a_fifth(coef, kl, n):
    after = ppo.adapt_kl_coef(coef, kl, n, target=6.0, horizon=1000.0)
    expected = coef * (1 + min(max(kl / 6 - 1, -0.2), 0.2) * n / 1000)
    assert float(after) == pytest.approx(float(expected), rel=1e-5)


def test_the_controller_locks_a_responsive_kl_to_its_target():
    # A toy plant, kl = 1.2 / coef: the coefficient must settle where that is the target.
    def step(coef, _):
        return ppo.adapt_kl_coef(coef, 1.2 / coef, 64, target=6.0, horizon=1000.0), 1.2 / coef

    _, kls = jax.lax.scan(step, jnp.float32(1.0), length=500)
    assert float(kls[0]) == pytest.approx(1.2)
    np.testing.assert_allclose(kls[-50:], 6.0, rtol=1e-3)
