"""Operations are counted as by hand, in loops as often as they run.

Seen to fail: without the length of a scan, without the turns of the decode loop, with both branches of a cond.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from podium.parallel.mesh import make_mesh
from podium.parallel.phases import phase
from podium.planning.operations import count

# [3, 5] x [5, 7]: 2 x 3 x 7 x 5.
LEFT, RIGHT, ONCE = jnp.ones((3, 5)), jnp.ones((5, 7)), 210.0
SQUARE, TWICE = jnp.ones((4, 4)), 128.0


def counted(function: object, *arguments: object, **options: int) -> dict[str, float]:
    return count(jax.make_jaxpr(function)(*arguments), **options)


def test_a_product_and_a_batched_one() -> None:
    assert counted(jnp.matmul, LEFT, RIGHT) == {"update": ONCE}
    batched = counted(lambda a, b: jnp.einsum("bij,bjk->bik", a, b), jnp.ones((2, 3, 5)), jnp.ones((2, 5, 7)))
    assert batched == {"update": 2 * ONCE}


def test_a_gradient_has_two_products_more() -> None:
    """One for each factor; that of a constant is left out."""
    loss = lambda a, b: jnp.sum(jnp.square(a @ b))  # noqa: E731
    assert counted(jax.grad(loss, argnums=(0, 1)), LEFT, RIGHT) == {"update": 3 * ONCE}
    assert counted(jax.grad(loss), LEFT, RIGHT) == {"update": 2 * ONCE}


def test_loops_count_as_often_as_they_run() -> None:
    def scanned(x: jax.Array) -> jax.Array:
        return jax.lax.scan(lambda carry, _: (carry @ x, None), x, None, length=9)[0]

    assert counted(scanned, SQUARE) == {"update": 9 * TWICE}
    assert counted(jax.jit(jax.checkpoint(scanned)), SQUARE) == {"update": 9 * TWICE}

    def decoded(x: jax.Array) -> jax.Array:
        with phase("decode"):
            return jax.lax.while_loop(lambda y: jnp.sum(y) < 3, lambda y: y @ x, x)

    assert counted(decoded, SQUARE, decode_steps=6) == {"decode": 6 * TWICE}


def test_of_two_branches_the_larger_counts() -> None:
    branches = counted(lambda x: jax.lax.cond(x[0, 0] > 0, lambda: x @ x @ x, lambda: x @ x), SQUARE)
    assert branches == {"update": 2 * TWICE}


def test_phases_reach_into_loops_and_gradients() -> None:
    def step(x: jax.Array) -> jax.Array:
        with phase("reference"):
            known = jax.lax.scan(lambda carry, _: (carry @ x, None), x, None, length=2)[0]
        with phase("update"):
            return jax.grad(lambda y: jnp.sum(jnp.square(y @ x)))(known)

    assert counted(step, SQUARE) == {"reference": 2 * TWICE, "update": 2 * TWICE}


def test_what_each_device_does_counts_for_all() -> None:
    mesh = make_mesh(data=8, fsdp=1)
    each = jax.shard_map(
        lambda x: x @ x.T, mesh=mesh, in_specs=PartitionSpec("data"), out_specs=PartitionSpec("data"), check_vma=False
    )
    with jax.set_mesh(mesh):
        assert counted(jax.jit(each), np.ones((16, 4), np.float32)) == {"update": 8 * 2.0 * 2 * 2 * 4}
