"""The rows of a batch: all in one program's view, or each device or slice with its own, and the program says where
they meet.

Left to XLA's partitioner, a PPO step over several devices of a CPU meets for every parameter of every update and for
every decoded token, and slices meet for every micro-batch. With rows apart they decode alone and meet once an update,
and once more in the first.
"""

from dataclasses import dataclass
from typing import TypeVar

import jax
from jax.flatten_util import ravel_pytree
from jax.sharding import Mesh

from podium.parallel.mesh import axis_size
from podium.parallel.sharding import FSDP, RULES, SLICE

Tree = TypeVar("Tree")


@dataclass(frozen=True)
class Rows:
    """Which rows a program sees: all of them, or those of one device or slice, where `axes` names their mesh axes.

    count: the number of devices or slices that hold rows. cut: the devices of a slice hold parts of arrays, which are
    exchanged one by one; else all that is exchanged travels together.
    """

    axes: tuple[str, ...] = ()
    count: int = 1
    cut: bool = False

    def all_gather(self, tree: Tree) -> Tree:
        """Gather arrays [rows, ...] of all, in the order of the batch; in one exchange where they are whole.

        Of several types, all travel as the one they promote to: integers beside float32 must be below 2^24.
        """
        if not self.axes:
            return tree
        if self.cut:
            parts: Tree = jax.tree.map(lambda x: jax.lax.all_gather(x, self.axes, tiled=True), tree)
            return parts
        with jax.numpy_dtype_promotion("standard"):
            _, restore = ravel_pytree(jax.tree.map(lambda x: x[0], tree))
            flat = jax.vmap(lambda row: ravel_pytree(row)[0])(tree)
            gathered: Tree = jax.vmap(restore)(jax.lax.all_gather(flat, self.axes, tiled=True))
        return gathered

    def local(self, tree: Tree) -> Tree:
        """Cut the rows that are here out of arrays over all rows."""
        if not self.axes:
            return tree
        place = jax.lax.axis_index(self.axes)

        def slice_local(x: jax.Array) -> jax.Array:
            size = x.shape[0] // self.count
            return jax.lax.dynamic_slice_in_dim(x, place * size, size)

        return jax.tree.map(slice_local, tree)

    def total(self, tree: Tree) -> Tree:
        """Add the trees of all; in one exchange where arrays are whole."""
        if not self.axes:
            return tree
        if self.cut:
            total: Tree = jax.lax.psum(tree, self.axes)
            return total
        with jax.numpy_dtype_promotion("standard"):
            flat, restore = ravel_pytree(tree)
            summed: Tree = restore(jax.lax.psum(flat, self.axes))
        return summed


ALL = Rows()


def slices_apart(mesh: Mesh) -> Rows | None:
    """Give the rows of one slice of a mesh of several, None for a mesh of one."""
    return Rows((SLICE,), mesh.shape[SLICE], cut=True) if mesh.shape[SLICE] > 1 else None


def rows_apart(mesh: Mesh) -> Rows | None:
    """Give the rows of one device of a mesh of several that cuts nothing but the batch, None for any other mesh."""
    if mesh.size == 1 or axis_size(mesh, (*FSDP, "tensor")) != 1:
        return None
    return Rows(tuple(axis for axis in RULES["batch"] or () if axis in mesh.shape), mesh.size)
