"""Looking ids up in a table of embeddings."""

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from podium.parallel.mesh import axis_size
from podium.parallel.sharding import MeshAxes, mesh_in_force, on_each_device, partition_spec


def lookup(table: jax.Array, ids: jax.Array, dtype: str) -> jax.Array:
    """Rows [batch, time, embed], in `dtype`, of a table [vocab, embed] at ids [batch, time].

    Over a mesh that cuts the table, rows are looked up where they lie and each device ends with those of its own part
    of the batch: what crosses devices is as large as the result, in the forward pass and in the backward pass. Left to
    XLA's partitioner, every device looked up the whole batch in float32. The result is that of one device to the last
    bit. A batch that the devices do not divide is left to the partitioner.
    """
    mesh = mesh_in_force()
    if mesh is None:
        return reference(table, ids, dtype)
    vocab, embed = partition_spec(("vocab", "embed"), mesh)
    batch = partition_spec(("batch",), mesh)[0]
    uncut = axis_size(mesh, vocab) * axis_size(mesh, embed) == 1
    if uncut or ids.shape[0] % axis_size(mesh, batch):
        return reference(table, ids, dtype)

    def local(table: jax.Array, ids: jax.Array) -> jax.Array:
        return _local(table, ids, dtype, vocab, embed if axis_size(mesh, embed) > 1 else None)

    specs = PartitionSpec(vocab, embed), PartitionSpec(batch)
    out: jax.Array = on_each_device(local, specs, PartitionSpec(batch))(table, ids)
    return out


def reference(table: jax.Array, ids: jax.Array, dtype: str) -> jax.Array:
    """Write the formula down."""
    return jnp.take(table, ids, axis=0).astype(dtype)


def _local(table: jax.Array, ids: jax.Array, dtype: str, vocab: MeshAxes, embed: MeshAxes) -> jax.Array:
    """On one device: its part of the table [vocab / v, embed / e], and its ids [batch / n, time].

    The devices that share the width share rows of the batch too: each looks up its columns for the rows of all of them,
    and rows are exchanged for columns.
    """
    if embed is not None:
        ids = jax.lax.all_gather(ids, embed, axis=0, tiled=True)
    here = ids
    if vocab is not None:
        here = ids - jax.lax.axis_index(vocab) * table.shape[0]
    inside = (here >= 0) & (here < table.shape[0])
    found = reference(table, jnp.clip(here, 0, table.shape[0] - 1), dtype)
    found = jnp.where(inside[..., None], found, jnp.zeros((), dtype))
    if embed is not None:
        found = jax.lax.all_to_all(found, embed, split_axis=0, concat_axis=found.ndim - 1, tiled=True)
    # All parts but one are zeros: the sum is exact.
    return found if vocab is None else jax.lax.psum(found, vocab)
