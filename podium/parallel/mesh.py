"""The device mesh: every program runs over one global mesh, of one device or of thousands."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AbstractMesh, AxisType, Mesh

from podium.errors import UserError

AXES = ("slice", "data", "fsdp", "tensor")
# The fastest part of fsdp, an axis of its own where a rollout shares weights over some of the devices of fsdp.
INNER = "fsdp_inner"


def make_mesh(
    *, data: int = 1, fsdp: int = -1, tensor: int = 1, slices: int = -1, devices: Sequence[jax.Device] | None = None
) -> Mesh:
    """Lay all devices (or the given ones) out as slice x data x fsdp x tensor.

    One size may be -1 and takes what the others leave. The slice axis is the number of TPU slices joined over the
    data-centre network (1 elsewhere); `slices` is what it has to be, -1 whatever it is. On TPUs neighbours on an axis
    are neighbours in the slice as far as its shape allows. Raises UserError when the sizes do not multiply to the
    number of devices.
    """
    devices = list(jax.devices() if devices is None else devices)
    found = len({getattr(device, "slice_index", 0) for device in devices})
    if slices not in (-1, found):
        raise UserError(f"platform.mesh: slice={slices}, but the devices are of {found}; write -1 or {found}")
    shape = (found, *mesh_sizes(len(devices) // found, data=data, fsdp=fsdp, tensor=tensor))
    return _mesh(_ordered(shape, devices), AXES)


def mesh_sizes(per_slice: int, *, data: int, fsdp: int, tensor: int) -> tuple[int, int, int]:
    """Give the devices along data, fsdp and tensor of a slice; one may be -1. Raises UserError as `make_mesh`."""
    sizes = {"data": data, "fsdp": fsdp, "tensor": tensor}
    rest = [name for name, size in sizes.items() if size == -1]
    fixed = math.prod(size for size in sizes.values() if size != -1)
    if len(rest) > 1 or (rest and per_slice % fixed) or (not rest and fixed != per_slice):
        raise UserError(
            f"platform.mesh: data={data}, fsdp={fsdp}, tensor={tensor} does not fit {per_slice} devices; "
            "write sizes whose product is the number of devices, one of them may be -1 (the rest)"
        )
    for name in rest:
        sizes[name] = per_slice // fixed
    return sizes["data"], sizes["fsdp"], sizes["tensor"]


def split_fsdp(mesh: Mesh, inner: int) -> Mesh:
    """Give the mesh with fsdp as two axes, of which the faster one has `inner` devices; the devices keep their order.

    Where `inner` is no proper part of fsdp there is nothing to split.
    """
    fsdp = mesh.shape["fsdp"]
    if not 1 < inner < fsdp or fsdp % inner or INNER in mesh.shape:
        return mesh
    alone: Any = mesh
    if isinstance(alone, AbstractMesh):
        # Of sizes without devices, which a plan lays arrays out on.
        sizes = (mesh.shape["slice"], mesh.shape["data"], fsdp // inner, inner, mesh.shape["tensor"])
        split: Any = AbstractMesh(sizes, (*AXES[:3], INNER, *AXES[3:]), axis_types=(AxisType.Auto,) * len(sizes))
        return split
    grid = mesh.devices.reshape(*mesh.devices.shape[:2], fsdp // inner, inner, -1)
    return _mesh(grid, (*AXES[:3], INNER, *AXES[3:]))


def axis_size(mesh: Mesh | AbstractMesh, axes: str | tuple[str, ...] | None) -> int:
    """Count the devices along these axes together; an axis that the mesh does not have is one of 1."""
    names = (axes,) if isinstance(axes, str) else axes or ()
    return math.prod(mesh.shape.get(name, 1) for name in names)


def _ordered(shape: tuple[int, ...], devices: list[jax.Device]) -> np.ndarray:
    """Put devices into the order in which rings of the axes have the fewest hops; that of JAX where there is no torus.

    Splitting a physical side over several axes costs nothing that is known here, and without it most shapes are
    refused.
    """
    if devices[0].platform != "tpu" or len(devices) == 1:
        return np.array(devices).reshape(shape)
    slices, *inside = shape
    if slices == 1:
        grid = mesh_utils.create_device_mesh(inside, devices, allow_split_physical_axes=True)
        return np.asarray(grid).reshape(shape)
    across = (slices, *(1 for _ in inside))
    grid = mesh_utils.create_hybrid_device_mesh((1, *inside), across, devices, allow_split_physical_axes=True)
    return np.asarray(grid)


def _mesh(grid: np.ndarray, axes: tuple[str, ...]) -> Mesh:
    return Mesh(grid, axes, axis_types=(AxisType.Auto,) * len(axes))
