"""What a mesh cannot divide is the user's to mend: the array, the axis and the sizes are named."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from podium.errors import UserError
from podium.models.family import init_params
from podium.parallel import placement
from podium.parallel.mesh import make_mesh
from podium.parallel.sharding import named_sharding, partition_spec
from podium.rlhf.networks import Network
from support import tiny


def test_weights_that_do_not_divide_are_named() -> None:
    """Two key-value heads over four devices."""
    params, _ = init_params(tiny.CONFIG, jax.random.key(0))
    mesh = make_mesh(data=2, fsdp=1, tensor=4)
    with pytest.raises(UserError, match=r"platform\.mesh: .*kv_heads.*tensor=4 = 4 devices cannot share"):
        placement.place_weights(mesh, Network(tiny.CONFIG).axes({"base": params}), {"base": params})


def test_a_batch_that_does_not_divide_is_named() -> None:
    with pytest.raises(UserError, match=r"platform\.mesh: batch has 6 along batch \(dimension 0\), which data=8 = 8"):
        placement.place_batch(make_mesh(data=8, fsdp=1), np.zeros((6, 3)))


def test_devices_that_a_mesh_does_not_fit_are_counted() -> None:
    with pytest.raises(UserError, match="data=3, fsdp=-1, tensor=1 does not fit 8 devices"):
        make_mesh(data=3)


def test_an_axis_without_a_rule_is_named() -> None:
    with pytest.raises(UserError, match="the axis 'experts' of this model has no row"):
        partition_spec(("batch", "experts"))


def test_what_divides_is_cut() -> None:
    sharding = named_sharding(make_mesh(data=2, fsdp=2, tensor=2), ("vocab", "embed"), (96, 32), "table")
    assert jax.device_put(jnp.zeros((96, 32)), sharding).addressable_shards[0].data.shape == (48, 16)
