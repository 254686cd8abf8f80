"""Meshes of chips that are not there: those that a compiler knows, or sizes alone."""

import itertools
from collections.abc import Iterable
from typing import Any

import numpy as np
from jax.sharding import AbstractMesh, AxisType, Mesh

from podium.config import MeshConfig
from podium.parallel.mesh import AXES, mesh_sizes
from podium.planning.topology import Topology


def sizes_on(topology: Topology, wanted: MeshConfig) -> tuple[int, ...]:
    """Give the devices along slice, data, fsdp and tensor. Raises UserError where they do not fit the chips."""
    return (topology.slices, *mesh_sizes(topology.per_slice, **wanted.sizes()))


def shape_mesh(sizes: tuple[int, ...]) -> Mesh:
    """Make a mesh of sizes alone: arrays can be laid out on it, nothing can be compiled."""
    # It has what layouts ask for: shape, size, names of axes.
    mesh: Any = AbstractMesh(sizes, AXES, axis_types=(AxisType.Auto,) * len(AXES))
    return mesh


def tpu_mesh(topology: Topology, sizes: tuple[int, ...]) -> Mesh:
    """Lay out the chips of TPU slices as JAX orders them: neighbours on a ring are neighbours in the torus.

    Needs libtpu, and the environment `requests.FOR_TPU` from the start of the process.
    """
    from jax.experimental import mesh_utils, topologies

    options: dict[str, Any] = {}
    if topology.slices > 1:
        options["num_slices"] = topology.slices
    if topology.per_slice < 4:
        options["chips_per_host_bounds"] = (*topology.shape, 1)[:3]
    if topology.name == "v4":
        # Two cores that are one device, as on the machines.
        options["chip_config_name"] = "megacore"
    described = topologies.get_topology_desc(topology.written, platform="tpu", **options)
    devices = list(described.devices)
    slices, *inside = sizes
    if slices > 1:
        grid = mesh_utils.create_hybrid_device_mesh(
            (1, *inside), (slices, 1, 1, 1), devices, allow_split_physical_axes=True
        )
    else:
        grid = mesh_utils.create_device_mesh(sizes, devices, allow_split_physical_axes=True)
    return Mesh(grid, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def hops(mesh: Mesh, topology: Topology) -> dict[str, float]:
    """Mean steps through the torus from a chip to the next along the ring of each axis; 1 is a neighbour.

    "fsdp+tensor" is the ring over both, which weights of a rollout may take. Slices are not connected by the torus.
    """
    grid = np.array(mesh.devices)
    rings = {axis: np.moveaxis(grid, place, -1).reshape(-1, grid.shape[place]) for place, axis in enumerate(AXES)}
    del rings["slice"]
    rings["fsdp+tensor"] = grid.reshape(grid.shape[0] * grid.shape[1], -1)
    return {name: _mean_hops(ring, topology) for name, ring in rings.items() if ring.shape[1] > 1}


def _mean_hops(rings: np.ndarray, topology: Topology) -> float:
    distances = [
        _distance(one.coords, other.coords, topology)
        for ring in rings
        for one, other in itertools.pairwise([*ring, ring[0]] if len(ring) > 2 else ring)
    ]
    return float(np.mean(distances))


def _distance(one: Iterable[int], other: Iterable[int], topology: Topology) -> int:
    """Steps along each side; a side wraps round where the hardware's does.

    That is 16 chips of v5e and v6e, a multiple of 4 of the others (https://cloud.google.com/tpu/docs/system-architecture-tpu-vm).
    """
    steps = 0
    for here, there, side in zip(one, other, (*topology.shape, 1), strict=False):
        apart = abs(here - there)
        wraps = side == 16 if topology.accelerator.chip.sides == 2 else side % 4 == 0
        steps += min(apart, side - apart) if wraps else apart
    return steps
