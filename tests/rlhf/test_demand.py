"""What a stage asks of its chips is what its arrays take: counted from configurations, and from arrays.

Seen to fail: with one slot of the optimizer in place of two.
"""

import jax
import pytest

from podium.config import PpoConfig, RewardConfig
from podium.models.family import init_params
from podium.models.lora import LoraSpec
from podium.rlhf.demand import decoding_demand, ppo_demand, supervised_demand
from podium.rlhf.networks import Network
from podium.rlhf.roles import make_roles
from support import tiny


def nbytes(tree) -> int:
    return sum(leaf.nbytes for leaf in jax.tree.leaves(tree))


@pytest.fixture(scope="module")
def base() -> int:
    """Bytes of the tiny decoder in float32."""
    return nbytes(init_params(tiny.CONFIG, jax.random.key(0))[0])


def test_training_all_weights_keeps_four_copies_in_float32(base: int) -> None:
    """Weights, gradients and two slots, of policy and critic; reference and reward model beside them."""
    roles = make_roles(tiny.CONFIG, Network(tiny.CONFIG, None, "reward"), PpoConfig(global_batch_size=64))
    demand = ppo_demand(roles, PpoConfig(global_batch_size=64, num_mini_batches=2))
    assert demand.total == pytest.approx((2 + 2 * 4) * base, rel=0.01)
    assert (demand.decoded, demand.rows, demand.width) == (base, 32, 32)
    assert demand.shared == (4, 64, 96, 4, 64, 96)


def test_adapters_share_one_frozen_base(base: int) -> None:
    config = PpoConfig(lora={"r": 2})
    roles = make_roles(tiny.CONFIG, Network(tiny.CONFIG, LoraSpec(2, 4.0), "policy"), config)
    demand = ppo_demand(roles, config)
    assert demand.resident["frozen"] == pytest.approx(base, rel=0.2)
    assert demand.resident["optimizer"] == pytest.approx(2 * demand.resident["trained"], rel=0.01)
    assert demand.rows is None


def test_supervised_training_and_answers(base: int) -> None:
    halves = tiny.CONFIG.replace(dtype="bfloat16")
    assert supervised_demand(tiny.CONFIG, RewardConfig()).total == pytest.approx(4 * base, rel=0.01)
    assert supervised_demand(halves, RewardConfig(lora={})).resident["frozen"] == pytest.approx(base / 2, rel=0.05)
    assert decoding_demand(halves, 3).total == 3 * decoding_demand(halves).decoded
