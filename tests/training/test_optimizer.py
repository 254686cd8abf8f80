"""podium.training.optimizer: the schedule's values, AdamW against a loop and torch's rule, masks, shardings."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from podium.training.optimizer import decayed, make_optimizer, make_schedule, optimizer_shardings

SETTINGS = {
    "learning_rate": 0.1,
    "lr_scheduler_type": "constant",
    "warmup_ratio": 0.0,
    "total_steps": 10,
    "weight_decay": 0.0,
    "max_grad_norm": 1e9,
    "b1": 0.9,
    "b2": 0.95,
    "eps": 1e-8,
}


def rates(kind, warmup_ratio, total):
    schedule = make_schedule(learning_rate=2.0, lr_scheduler_type=kind, warmup_ratio=warmup_ratio, total_steps=total)
    return [float(schedule(jnp.int32(count))) for count in range(total + 1)]


def test_a_linear_schedule_rises_in_equal_parts_and_falls_to_zero():
    # The first update has half the rate of the second, not zero: with zero it would be thrown away.
    np.testing.assert_allclose(rates("linear", 0.4, 5), [1.0, 2.0, 2.0, 4 / 3, 2 / 3, 0.0], atol=1e-6)


def test_a_constant_schedule_stays_after_the_rise():
    np.testing.assert_allclose(rates("constant", 0.5, 4), [1.0, 2.0, 2.0, 2.0, 2.0], atol=1e-6)


def test_a_cosine_schedule_is_half_a_cosine():
    expected = [1 + math.cos(math.pi * count / 4) for count in range(5)]
    np.testing.assert_allclose(rates("cosine", 0.0, 4), expected, atol=1e-6)


@pytest.mark.parametrize(("ratio", "total", "updates"), [(0.07, 100, 7), (0.03, 10, 1), (0.31, 10, 4), (0.0, 10, 0)])
def test_the_rise_takes_the_rounded_up_share(ratio, total, updates):
    # In floating point 0.07 * 100 is more than 7.
    expected = [2.0 * min((count + 1) / max(updates, 1), 1) for count in range(total + 1)]
    np.testing.assert_allclose(rates("constant", ratio, total), expected, rtol=1e-6)


def test_an_unknown_schedule_is_refused():
    with pytest.raises(ValueError, match="'polynomial'"):
        make_schedule(learning_rate=1.0, lr_scheduler_type="polynomial", warmup_ratio=0.0, total_steps=1)


def adamw(start, gradients, rate, b1, b2, eps, decay):
    """Loop over Kingma and Ba's algorithm 1 with the decoupled decay of Loshchilov and Hutter."""
    x, first, second = np.array(start, float), np.zeros_like(start, float), np.zeros_like(start, float)
    for t, gradient in enumerate(gradients, 1):
        first = b1 * first + (1 - b1) * gradient
        second = b2 * second + (1 - b2) * gradient**2
        step = (first / (1 - b1**t)) / (np.sqrt(second / (1 - b2**t)) + eps)
        x = x - rate * (step + decay * x)
    return x


def run(tx, params, gradients):
    state = tx.init(params)
    for gradient in gradients:
        updates, state = jax.jit(tx.update)(gradient, state, params)
        params = optax.apply_updates(params, updates)
    return params


def test_updates_are_adamw_and_decay_only_what_should():
    random = np.random.default_rng(0)
    names = ("kernel", "scale", "bias")
    start = {"blocks": {name: random.normal(size=(2, 3)).astype(np.float32) for name in names}}
    gradients = [jax.tree.map(lambda x: random.normal(size=x.shape).astype(np.float32), start) for _ in range(4)]
    # A large epsilon: inside the square root it would give other numbers.
    end = run(make_optimizer(**SETTINGS | {"weight_decay": 0.5, "eps": 0.1}), start, gradients)
    for name in names:
        steps = [gradient["blocks"][name] for gradient in gradients]
        expected = adamw(start["blocks"][name], steps, 0.1, 0.9, 0.95, 0.1, 0.5 if name == "kernel" else 0.0)
        np.testing.assert_allclose(end["blocks"][name], expected, rtol=1e-5, atol=1e-6, err_msg=name)


def test_a_large_gradient_is_scaled_to_the_norm_over_all_parameters():
    start = {"a": {"kernel": np.zeros(1, np.float32)}, "b": {"kernel": np.zeros(1, np.float32)}}
    gradient = {"a": {"kernel": np.array([3.0], np.float32)}, "b": {"kernel": np.array([4.0], np.float32)}}
    # With b1 = b2 = 0 and a huge epsilon, Adam's step is the gradient over epsilon: what the clip left can be read.
    tx = make_optimizer(**SETTINGS | {"max_grad_norm": 1.0, "b1": 0.0, "b2": 0.0, "eps": 1e4, "learning_rate": 1e4})
    end = run(tx, start, [gradient])
    np.testing.assert_allclose([end["a"]["kernel"][0], end["b"]["kernel"][0]], [-0.6, -0.8], rtol=1e-3)
    free = run(make_optimizer(**SETTINGS | {"max_grad_norm": 6.0, "eps": 1e4, "learning_rate": 1e4}), start, [gradient])
    np.testing.assert_allclose([free["a"]["kernel"][0], free["b"]["kernel"][0]], [-3, -4], rtol=1e-3)


def test_stacked_norm_scales_are_not_decayed_though_they_have_two_axes():
    tree = {"blocks": {"mlp_norm": {"scale": 0}, "mlp": {"up_proj": {"kernel": 0, "lora_a": 0}}}, "table": 0, "bias": 0}
    assert decayed(tree) == {
        "blocks": {"mlp_norm": {"scale": False}, "mlp": {"up_proj": {"kernel": True, "lora_a": True}}},
        "table": True,
        "bias": False,
    }


def test_every_slot_lies_like_its_parameter():
    mesh = jax.make_mesh((2, 4), ("fsdp", "tensor"), axis_types=(AxisType.Auto,) * 2)
    layout = {"kernel": PartitionSpec("fsdp", "tensor"), "scale": PartitionSpec("fsdp"), "bias": PartitionSpec()}
    shardings = {name: NamedSharding(mesh, spec) for name, spec in layout.items()}
    params = jax.device_put({"kernel": np.ones((4, 8)), "scale": np.ones(4), "bias": np.ones(3)}, shardings)
    tx = make_optimizer(**SETTINGS | {"weight_decay": 0.1})
    wanted = optimizer_shardings(tx, shardings, jax.eval_shape(lambda: jax.tree.map(jnp.zeros_like, params)), mesh)
    state = jax.jit(tx.init, out_shardings=wanted)(params)
    slots = [leaf for leaf in jax.tree.leaves(state) if leaf.ndim]
    assert sorted(leaf.sharding.shard_shape(leaf.shape) for leaf in slots) == sorted([(2, 2), (2,), (3,)] * 2)
    assert all(len(leaf.sharding.device_set) == 8 for leaf in jax.tree.leaves(state))
    _, after = jax.jit(tx.update, out_shardings=(shardings, wanted))(params, state, params)
    assert jax.tree.map(lambda leaf: leaf.sharding, after) == jax.tree.map(lambda leaf: leaf.sharding, state)
