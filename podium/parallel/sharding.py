"""Logical axes to mesh axes: one total table, and what follows from it."""

import contextlib
import contextvars
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
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
        moved = {name: self.weights if axes == "tensor" else None for name, axes in RULES.items()}
        return moved | {"batch": self.rows}


_RULES: contextvars.ContextVar[Mapping[str, MeshAxes]] = contextvars.ContextVar("rules", default=RULES)


@contextlib.contextmanager
def laid_out(layout: Layout) -> Iterator[None]:
    """Trace what follows with the table of another layout of the mesh."""
    token = _RULES.set(layout.rules)
    try:
        yield
    finally:
        _RULES.reset(token)


def partition_spec(axes: Axes) -> PartitionSpec:
    """Translate the logical axes of one array by the table in force; raises UserError for a name without a row."""
    rules = _RULES.get()
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
