"""Taking the value of one token out of those of a vocabulary."""

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from podium.parallel.mesh import axis_size
from podium.parallel.sharding import MeshAxes, mesh_in_force, on_each_device, partition_spec


def pick(wide: jax.Array, ids: jax.Array) -> jax.Array:
    """Give the values [batch, ...] of an array [batch, ..., vocab] at ids [batch, ...].

    Where devices share the vocabulary, each looks into its own part. XLA's partitioner (of jaxlib 0.10.2) does so, too,
    but ends the process where slices run apart (`on_each_slice`).
    """
    mesh = mesh_in_force()
    if mesh is None:
        return reference(wide, ids)
    batch, vocab = partition_spec(("batch", "vocab"), mesh)
    parts = axis_size(mesh, vocab)
    if parts == 1 or wide.shape[-1] % parts or wide.shape[0] % axis_size(mesh, batch):
        return reference(wide, ids)

    def local(part: jax.Array, ids: jax.Array) -> jax.Array:
        return _local(part, ids, vocab)

    between = (None,) * (ids.ndim - 1)
    specs = PartitionSpec(batch, *between, vocab), PartitionSpec(batch, *between)
    out: jax.Array = on_each_device(local, specs, specs[1])(wide, ids)
    return out


def reference(wide: jax.Array, ids: jax.Array) -> jax.Array:
    """Write the formula down."""
    return jnp.take_along_axis(wide, ids[..., None], axis=-1)[..., 0]


def _local(part: jax.Array, ids: jax.Array, vocab: MeshAxes) -> jax.Array:
    here = ids - jax.lax.axis_index(vocab) * part.shape[-1]
    inside = (here >= 0) & (here < part.shape[-1])
    found = reference(part, jnp.clip(here, 0, part.shape[-1] - 1))
    # All parts but one are zeros: the sum is exact.
    return jax.lax.psum(jnp.where(inside, found, jnp.zeros((), part.dtype)), vocab)
