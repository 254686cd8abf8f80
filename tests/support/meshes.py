"""Meshes of the devices here, as if they were of several slices."""

from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import Mesh

from podium.parallel.mesh import make_mesh


def sliced(slices: int = 1, *, devices: Sequence[jax.Device] | None = None, **sizes: int) -> Mesh:
    """Give a mesh of so many slices, each as `make_mesh` lays out its part of the devices."""
    devices = list(jax.devices() if devices is None else devices)
    one = make_mesh(**sizes, devices=devices[: len(devices) // slices])
    grid = np.array(devices).reshape(slices, *one.devices.shape[1:])
    return Mesh(grid, one.axis_names, axis_types=one.axis_types)
