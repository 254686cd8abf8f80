"""What a mesh cannot divide is the user's to mend: the array, the axis and the sizes are named."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from podium.errors import UserError
from podium.models.family import abstract_params, init_params, parameter_axes
from podium.parallel import placement
from podium.parallel.mesh import make_mesh, split_fsdp
from podium.parallel.sharding import named_sharding, partition_spec, spread, sum_of_slices, tree_shardings
from podium.planning.collectives import collectives_in
from podium.rlhf.networks import Network
from podium.training.accumulate import sum_over
from support import tiny
from support.meshes import sliced


def test_weights_that_do_not_divide_are_named() -> None:
    """Four query heads over eight devices; two key-value heads are repeated, and no mistake."""
    params, _ = init_params(tiny.CONFIG, jax.random.key(0))
    mesh = make_mesh(data=1, fsdp=1, tensor=8)
    with pytest.raises(UserError, match=r"platform\.mesh: .* 4 along heads .*tensor=8 = 8 devices cannot share"):
        placement.place_weights(mesh, Network(tiny.CONFIG).axes({"base": params}), {"base": params})


def test_a_batch_that_does_not_divide_is_named() -> None:
    with pytest.raises(UserError, match=r"platform\.mesh: batch has 6 along batch \(dimension 0\), which data=8 = 8"):
        placement.place_batch(make_mesh(data=8, fsdp=1), np.zeros((6, 3)))


def test_devices_that_a_mesh_does_not_fit_are_counted() -> None:
    with pytest.raises(UserError, match="data=3, fsdp=-1, tensor=1 does not fit 8 devices"):
        make_mesh(data=3)


def test_slices_that_are_not_there_are_counted() -> None:
    with pytest.raises(UserError, match="slice=2, but the devices are of 1; write -1 or 1"):
        make_mesh(slices=2)


def test_an_axis_without_a_rule_is_named() -> None:
    with pytest.raises(UserError, match="the axis 'experts' of this model has no row"):
        partition_spec(("batch", "experts"))


def test_what_divides_is_cut() -> None:
    sharding = named_sharding(make_mesh(data=2, fsdp=2, tensor=2), ("vocab", "embed"), (96, 32), "table")
    assert jax.device_put(jnp.zeros((96, 32)), sharding).addressable_shards[0].data.shape == (48, 16)


def test_fsdp_in_two_axes_cuts_as_one_does() -> None:
    mesh = make_mesh(data=1, fsdp=4, tensor=2)
    split = split_fsdp(mesh, 2)
    assert dict(split.shape) == {"slice": 1, "data": 1, "fsdp": 2, "fsdp_inner": 2, "tensor": 2}
    assert split_fsdp(mesh, 4) is mesh and split_fsdp(mesh, 3) is mesh
    for axes in (("vocab", "embed"), ("batch", None)):
        cuts = [named_sharding(one, axes, (32, 16)).devices_indices_map((32, 16)) for one in (mesh, split)]
        assert cuts[0] == cuts[1]
    assert placement.data_parallel(split) == placement.data_parallel(mesh) == 4


@pytest.mark.parametrize("kv_heads", [1, 3, 4])
def test_key_value_heads_are_repeated_until_devices_share_them(kv_heads: int) -> None:
    """Each query head still finds its own by dividing: head n of 12 belongs to n // (12 / kv_heads)."""
    with jax.set_mesh(make_mesh(data=2, fsdp=1, tensor=4)):
        heads = jax.jit(lambda x: spread(x, ("embed", "kv_heads", "head_dim")))(
            jnp.arange(kv_heads, dtype=jnp.float32)[None, :, None]
        )
    repeated = heads.shape[1]
    assert repeated % 4 == 0 and 12 % repeated == 0
    assert [int(heads[0, n // (12 // repeated), 0]) for n in range(12)] == [n // (12 // kv_heads) for n in range(12)]


def test_slices_meet_once_for_all_parts_of_a_batch() -> None:
    """Left to XLA, they met in every turn of the loop."""
    mesh = sliced(2, fsdp=2, tensor=2)
    batch = np.random.default_rng(0).normal(size=(5, 8, 4)).astype(np.float32)

    def squares(same: jax.Array, batch: jax.Array) -> jax.Array:
        return sum_over(lambda part: same @ (part * part).sum(axis=0), batch)

    same = np.full((3, 4), 0.5, np.float32)
    with placement.on(mesh):
        arguments = jax.device_put(same, placement.whole(mesh)), placement.place_batch(mesh, batch, dim=1)
        program = jax.jit(functools.partial(sum_of_slices, squares)).lower(*arguments).compile()
        found = program(*arguments)
    np.testing.assert_allclose(found, same @ (batch * batch).sum(axis=(0, 1)), rtol=1e-5)
    exchanges = [one for of_phase in collectives_in(program.as_text(), mesh.shape).values() for one in of_phase]
    assert [one.count for one in exchanges if "slice" in one.axis] == [1]


@pytest.mark.parametrize(("head_dim", "whole"), [(8, ""), (6, "lora_head_dim")])
def test_adapters_are_cut_over_fsdp_on_the_side_that_has_no_width(head_dim: int, whole: str) -> None:
    """Kernels are cut along their width; one of the two of an adapter has none. Heads that do not divide stay whole."""
    config = tiny.CONFIG.replace(head_dim=head_dim)
    (_, adapter), (_, axes) = abstract_params(config, tiny.LORA), parameter_axes(config, tiny.LORA)
    placed = tree_shardings(make_mesh(fsdp=8), axes, adapter)
    names = jax.tree.leaves(axes, is_leaf=lambda node: isinstance(node, tuple))
    for leaf, dims, sharding in zip(jax.tree.leaves(adapter), names, jax.tree.leaves(placed), strict=True):
        parts = leaf.size // math.prod(sharding.shard_shape(leaf.shape))
        assert parts == (1 if whole in dims else 8), dims
