"""Logical axes to mesh axes: one total table, and what follows from it."""

import contextlib
import contextvars
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

from podium.errors import UserError
from podium.parallel.mesh import AXES, INNER, axis_size

Axes = tuple[str | None, ...]
MeshAxes = str | tuple[str, ...] | None
AnyMesh = Mesh | AbstractMesh

SLICE = AXES[0]
FSDP = ("fsdp", INNER)
# Left: what a dimension means. Right: the mesh axes it is cut over. A dimension whose name is not here is an error; a
# mesh axis that the mesh does not have is passed over.
RULES: Mapping[str, MeshAxes] = {
    "batch": ("slice", "data", *FSDP),
    "time": None,
    "layers": None,
    "vocab": "tensor",
    "embed": FSDP,
    "norm": None,
    "heads": "tensor",
    "kv_heads": "tensor",
    "head_dim": None,
    "mlp": "tensor",
    # Adapters have no dimension of the width on the side where they meet these: cut over fsdp along them, where it
    # divides them, or each device would hold them whole, with their slots of the optimizer and their gradients.
    "lora": None,
    "lora_mlp": (*FSDP, "tensor"),
    "lora_head_dim": FSDP,
    "buckets": None,
    # Activations keep their width whole: only parameters are cut over fsdp.
    "activation": None,
}
# Whole on every device where the devices do not divide it: `spread` then gives each what it computes with.
SPREAD = "kv_heads"
# What dimensions are cut over where the devices of the table do not divide them.
_ELSE: Mapping[str, MeshAxes] = {SPREAD: None, "lora_mlp": "tensor", "lora_head_dim": None}


@dataclass(frozen=True)
class Layout:
    """Which mesh axes the batch and the dimensions of weights are cut over; the same table but for these.

    weights: what stands for "tensor"; rows: what the batch is cut over. No dimension is cut over the rest.
    """

    weights: tuple[str, ...]
    rows: tuple[str, ...]

    @property
    def rules(self) -> Mapping[str, MeshAxes]:
        """The table of this layout."""
        moved = {name: self.weights if "tensor" in _as_tuple(axes) else None for name, axes in RULES.items()}
        return moved | {"batch": self.rows}

    @property
    def halfway(self) -> Mapping[str, MeshAxes]:
        """The table of this layout with widths still cut over what weights are not cut over anew."""
        return {**self.rules, "embed": tuple(axis for axis in FSDP if axis not in self.weights)}


_RULES: contextvars.ContextVar[Mapping[str, MeshAxes]] = contextvars.ContextVar("rules", default=RULES)


@contextlib.contextmanager
def laid_out(layout: Layout, *, halfway: bool = False) -> Iterator[None]:
    """Trace what follows with the table of another layout of the mesh, or the one on the way to it."""
    token = _RULES.set(layout.halfway if halfway else layout.rules)
    try:
        yield
    finally:
        _RULES.reset(token)


def partition_spec(axes: Axes, mesh: AnyMesh | None = None) -> PartitionSpec:
    """Translate the logical axes of one array by the table in force, for `mesh` or for the mesh in force.

    Raises UserError for a name without a row.
    """
    rules = _RULES.get()
    unknown = [name for name in axes if name is not None and name not in rules]
    if unknown:
        raise UserError(
            f"platform.mesh: the axis {unknown[0]!r} of this model has no row in the sharding table "
            "(podium/parallel/sharding.py); write a mesh of one device: {data: 1, fsdp: 1, tensor: 1}"
        )
    mesh = jax.sharding.get_abstract_mesh() if mesh is None else mesh
    return PartitionSpec(*(None if name is None else _present(rules[name], mesh) for name in axes))


def _present(axes: MeshAxes, mesh: AnyMesh) -> MeshAxes:
    """The axes that the mesh has; one alone is a name."""
    if axes is None or isinstance(axes, str):
        return axes
    names = AXES if mesh.empty else mesh.axis_names
    # Those that the program sees one part of already, as inside of `each_slice`, are passed over, too.
    present = tuple(axis for axis in axes if axis in names and axis not in mesh.manual_axes)
    return present[0] if len(present) == 1 else present


def fitting_spec(axes: Axes, shape: tuple[int, ...], mesh: AnyMesh) -> PartitionSpec:
    """As `partition_spec`, with key-value heads whole where the devices do not divide them, and adapters cut less."""
    spec = partition_spec(axes, mesh)
    return PartitionSpec(
        *(
            _ELSE.get(name or "", cut) if size % axis_size(mesh, cut) else cut
            for name, size, cut in zip(axes, shape, spec, strict=True)
        )
    )


def named_sharding(mesh: Mesh, axes: Axes, shape: tuple[int, ...] | None = None, name: str = "array") -> NamedSharding:
    """Give the sharding of one array; raises UserError that names a dimension which does not divide."""
    if shape is None:
        return NamedSharding(mesh, partition_spec(axes, mesh))
    spec = fitting_spec(axes, shape, mesh)
    for dim, (size, axis, mesh_axes) in enumerate(zip(shape, axes, spec, strict=True)):
        parts = axis_size(mesh, mesh_axes)
        if size % parts:
            over = " x ".join(f"{a}={mesh.shape[a]}" for a in _as_tuple(mesh_axes) if mesh.shape[a] > 1)
            raise UserError(
                f"platform.mesh: {name} has {size} along {axis} (dimension {dim}), which {over} = {parts} devices "
                "cannot share equally; write sizes that divide it"
            )
    return NamedSharding(mesh, spec)


def mesh_in_force() -> AbstractMesh | None:
    """The mesh of `jax.set_mesh`; None without one, and where a program runs on each device's own rows (`rows`)."""
    mesh = jax.sharding.get_abstract_mesh()
    return None if mesh.empty or set(mesh.manual_axes) == set(mesh.axis_names) else mesh


def on_each_device(function: Callable[..., Any], in_specs: Any, out_specs: Any, *, check: bool = True) -> Any:
    """Let each device of the mesh in force run a function on its parts of the arguments; check: `jax.shard_map`'s."""
    mesh = jax.sharding.get_abstract_mesh()
    axes = set(mesh.axis_names) - set(mesh.manual_axes)
    return jax.shard_map(function, in_specs=in_specs, out_specs=out_specs, axis_names=axes, check_vma=check)


def on_each_slice(function: Callable[[Any, Any], Any], weights: Any, rows: Any) -> Any:
    """Let each slice of the mesh in force run a function of weights and its own rows; gives arrays [rows, ...].

    Inside a slice XLA divides the program as before. Nothing crosses the network between slices, and a loop in the
    function ends on each when its own rows have. Rows that the slices do not divide are left to all of them together.
    """
    mesh = mesh_in_force()
    slices = 1 if mesh is None or SLICE in mesh.manual_axes else axis_size(mesh, SLICE)
    if slices == 1 or any(array.shape[0] % slices for array in jax.tree.leaves(rows)):
        return function(weights, rows)
    specs = PartitionSpec(), PartitionSpec(SLICE)
    # Unchecked: every slice has the same weights.
    run = jax.shard_map(function, in_specs=specs, out_specs=specs[1], axis_names={SLICE}, check_vma=False)
    return run(weights, rows)


def sum_of_slices(function: Callable[[Any, Any], Any], same: Any, batch: Any) -> Any:
    """Add up what a function gives of each slice's part of a batch, arrays [parts, rows, ...]; `same` is for all.

    Numbers cross the network between slices once, when the function is through with all parts.
    """
    mesh = mesh_in_force()
    slices = 1 if mesh is None else axis_size(mesh, SLICE)
    if slices == 1:
        return function(same, batch)

    def of_slice(same: Any, batch: Any) -> Any:
        return jax.lax.psum(function(same, batch), SLICE)

    specs = PartitionSpec(), PartitionSpec(None, SLICE)
    # Unchecked: a sum is the same everywhere.
    run = jax.shard_map(of_slice, in_specs=specs, out_specs=specs[0], axis_names={SLICE}, check_vma=False)
    return run(same, batch)


def spread(x: jax.Array, axes: Axes) -> jax.Array:
    """Repeat key-value heads that the devices of a mesh cannot share equally; others stay as they are.

    Each head follows itself until the devices divide them: lcm(heads, devices) heads, which query heads that devices
    share are still whole groups of, in the same order. So each device computes and remembers the key-value heads of its
    own query heads, and the gradient of a head is the sum over its copies.
    """
    mesh = mesh_in_force()
    if mesh is None or SPREAD not in axes:
        return x
    dim = axes.index(SPREAD)
    parts = axis_size(mesh, partition_spec(axes, mesh)[dim])
    copies = math.lcm(x.shape[dim], parts) // x.shape[dim]
    return x if copies == 1 else constrain(jnp.repeat(x, copies, axis=dim), *axes)


def spread_tree(tree: Any, axes: Any) -> Any:
    """Repeat the key-value heads of every leaf, as `spread` does: what is laid out so is cut, where it would be whole.

    A network computes with such weights as with its own.
    """
    return jax.tree.map(spread, tree, axes)


def constrain_tree(tree: Any, axes: Any) -> Any:
    """Pin every leaf of a tree to its logical axes, as `constrain` does."""
    return jax.tree.map(lambda leaf, names: constrain(leaf, *names), tree, axes)


def tree_shardings(mesh: Mesh, axes: Any, shapes: Any) -> Any:
    """Give the sharding of every leaf of a tree of axes (tuples) with the tree of its shapes or arrays."""
    return jax.tree_util.tree_map_with_path(
        lambda path, array, names: named_sharding(
            mesh, names, tuple(array.shape), jax.tree_util.keystr(path, simple=True, separator=".")
        ),
        shapes,
        axes,
    )


def constrain(x: jax.Array, *axes: str | None) -> jax.Array:
    """Pin an array to its logical axes under the mesh in force (`jax.set_mesh`), if there is one."""
    mesh = mesh_in_force()
    return x if mesh is None else jax.lax.with_sharding_constraint(x, fitting_spec(axes, x.shape, mesh))


def _as_tuple(mesh_axes: MeshAxes) -> tuple[str, ...]:
    if mesh_axes is None:
        return ()
    return (mesh_axes,) if isinstance(mesh_axes, str) else tuple(mesh_axes)
