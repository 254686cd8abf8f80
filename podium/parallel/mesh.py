"""The device mesh: every program runs over one global mesh, of one device or of thousands."""

from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import AxisType, Mesh

from podium.errors import UserError

AXES = ("slice", "data", "fsdp", "tensor")


def make_mesh(*, data: int = 1, fsdp: int = -1, tensor: int = 1, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Lay all devices (or the given ones) out as slice x data x fsdp x tensor.

    One size may be -1 and takes what the others leave. The slice axis is the number of TPU slices joined over the
    data-centre network (1 elsewhere). Raises UserError when the sizes do not multiply to the number of devices.
    """
    devices = list(jax.devices() if devices is None else devices)
    slices = len({getattr(device, "slice_index", 0) for device in devices})
    shape = (slices, *mesh_sizes(len(devices) // slices, data=data, fsdp=fsdp, tensor=tensor))
    grid = np.array(devices).reshape(shape)
    return Mesh(grid, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def mesh_sizes(per_slice: int, *, data: int, fsdp: int, tensor: int) -> tuple[int, int, int]:
    """Give the devices along data, fsdp and tensor of a slice; one may be -1. Raises UserError as `make_mesh`."""
    sizes = {"data": data, "fsdp": fsdp, "tensor": tensor}
    rest = [name for name, size in sizes.items() if size == -1]
    fixed = int(np.prod([size for size in sizes.values() if size != -1]))
    if len(rest) > 1 or (rest and per_slice % fixed) or (not rest and fixed != per_slice):
        raise UserError(
            f"platform.mesh: data={data}, fsdp={fsdp}, tensor={tensor} does not fit {per_slice} devices; "
            "write sizes whose product is the number of devices, one of them may be -1 (the rest)"
        )
    for name in rest:
        sizes[name] = per_slice // fixed
    return sizes["data"], sizes["fsdp"], sizes["tensor"]
