"""Meshes of chips that are not there: those that a compiler knows, or sizes alone."""

import itertools
import math
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


def links(mesh: Mesh, topology: Topology) -> dict[str, float]:
    """How many links' bandwidth, one way, an exchange along each axis, or axes together, can use: "fsdp", "data+fsdp".

    Devices that fill a box of the torus exchange along all its sides at once: a side counts two where it wraps round,
    as a ring has two directions, and one where it does not. Others share links with their neighbours' exchanges: the
    two of a ring, over the mean hops from one to the next.
    """
    grid = np.array(mesh.devices)
    found = {}
    for count in range(1, len(AXES)):
        for axes in itertools.combinations(AXES[1:], count):
            places = [AXES.index(axis) for axis in axes]
            groups = np.moveaxis(grid, places, range(-count, 0)).reshape(-1, math.prod(grid.shape[p] for p in places))
            if groups.shape[1] > 1 and all(mesh.shape[axis] > 1 for axis in axes):
                found["+".join(axes)] = min(_links(group, topology) for group in groups)
    return found


def _links(group: np.ndarray, topology: Topology) -> float:
    coordinates = np.array([device.coords for device in group])
    extents = coordinates.max(axis=0) - coordinates.min(axis=0) + 1
    if math.prod(map(int, extents)) != len(group):
        return 2.0 / max(_mean_hops(group[None], topology), 1.0)
    sides = zip(extents, (*topology.shape, 1), strict=False)
    return float(sum(2 if extent == side and _wraps(side, topology) else 1 for extent, side in sides if extent > 1))


def _mean_hops(rings: np.ndarray, topology: Topology) -> float:
    distances = [
        _distance(one.coords, other.coords, topology)
        for ring in rings
        for one, other in itertools.pairwise([*ring, ring[0]] if len(ring) > 2 else ring)
    ]
    return float(np.mean(distances))


def _distance(one: Iterable[int], other: Iterable[int], topology: Topology) -> int:
    """Steps along each side, the shorter way round where it wraps."""
    steps = 0
    for here, there, side in zip(one, other, (*topology.shape, 1), strict=False):
        apart = abs(here - there)
        steps += min(apart, side - apart) if _wraps(side, topology) else apart
    return steps


def _wraps(side: int, topology: Topology) -> bool:
    """Say whether the chips at the ends of a side are neighbours.

    They are where it has 16 chips of v5e or v6e, and a multiple of 4 of the others
    (https://jax-ml.github.io/scaling-book/tpus).
    """
    return side == 16 if topology.accelerator.chip.sides == 2 else side % 4 == 0
