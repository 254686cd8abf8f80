"""Logical axes to mesh axes: one total table, and what follows from it."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from podium.errors import UserError

Axes = tuple[str | None, ...]
MeshAxes = str | tuple[str, ...] | None

# Left: what a dimension means. Right: the mesh axes it is cut over. A dimension whose name is not here is an error.
RULES: Mapping[str, MeshAxes] = {
    "batch": ("slice", "data", "fsdp"),
    "time": None,
    "layers": None,
    "vocab": "tensor",
    "embed": "fsdp",
    "norm": None,
    "heads": "tensor",
    "kv_heads": "tensor",
    "head_dim": None,
    "mlp": "tensor",
    "lora": None,
    "buckets": None,
    # Activations keep their width whole: only parameters are cut over fsdp.
    "activation": None,
}


def partition_spec(axes: Axes, rules: Mapping[str, MeshAxes] = RULES) -> PartitionSpec:
    """Translate the logical axes of one array; raises UserError for a name without a row."""
    unknown = [name for name in axes if name is not None and name not in rules]
    if unknown:
        raise UserError(
            f"platform.mesh: the axis {unknown[0]!r} of this model has no row in the sharding table "
            "(podium/parallel/sharding.py); write a mesh of one device: {data: 1, fsdp: 1, tensor: 1}"
        )
    return PartitionSpec(*(None if name is None else rules[name] for name in axes))


def named_sharding(mesh: Mesh, axes: Axes, shape: tuple[int, ...] | None = None, name: str = "array") -> NamedSharding:
    """Give the sharding of one array; raises UserError that names a dimension which does not divide."""
    spec = partition_spec(axes)
    if shape is not None:
        for dim, (size, axis, mesh_axes) in enumerate(zip(shape, axes, spec, strict=True)):
            parts = int(np.prod([mesh.shape[a] for a in _as_tuple(mesh_axes)]))
            if size % parts:
                over = " x ".join(f"{a}={mesh.shape[a]}" for a in _as_tuple(mesh_axes) if mesh.shape[a] > 1)
                raise UserError(
                    f"platform.mesh: {name} has {size} along {axis} (dimension {dim}), which {over} = {parts} devices "
                    "cannot share equally; write sizes that divide it"
                )
    return NamedSharding(mesh, spec)


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
    """Pin an activation to its logical axes under the mesh in force (`jax.set_mesh`).

    Without a mesh, and where a program runs on each device's own rows (`rows`), do nothing.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.manual_axes:
        return x
    return jax.lax.with_sharding_constraint(x, partition_spec(axes))


def _as_tuple(mesh_axes: MeshAxes) -> tuple[str, ...]:
    if mesh_axes is None:
        return ()
    return (mesh_axes,) if isinstance(mesh_axes, str) else tuple(mesh_axes)
