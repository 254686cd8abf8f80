"""Meshes of chips that are not there: those that a compiler knows, or sizes alone."""

import itertools
import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from jax.sharding import AbstractMesh, AxisType, Mesh

from podium.config import MeshConfig
from podium.errors import UserError
from podium.parallel.choice import GIB, Chips
from podium.parallel.mesh import AXES, axis_size, make_mesh, mesh_sizes
from podium.parallel.sharding import FSDP
from podium.planning.topology import Topology


def sizes_on(topology: Topology, wanted: MeshConfig) -> tuple[int, ...]:
    """Give the devices along slice, data, fsdp and tensor. Raises UserError where they do not fit the chips."""
    if wanted.slice not in (-1, topology.slices):
        raise UserError(f"platform.mesh: slice={wanted.slice}, but the plan is for {topology}; write -1")
    sizes = mesh_sizes(topology.per_slice, data=wanted.data, fsdp=wanted.fsdp, tensor=wanted.tensor)
    return (topology.slices, *sizes)


def sizes_of(mesh: Mesh) -> dict[str, int]:
    """Give the devices along each axis that a config names."""
    return {axis: axis_size(mesh, FSDP if axis == "fsdp" else axis) for axis in AXES}


def chips_of(topology: Topology) -> Chips:
    """Describe chips as `auto` chooses a mesh for them."""
    return Chips(topology.chips, topology.accelerator.chip.memory // GIB * GIB, topology.slices)


def shape_mesh(sizes: tuple[int, ...]) -> Mesh:
    """Make a mesh of sizes alone: arrays can be laid out on it, nothing can be compiled."""
    # It has what layouts ask for: shape, size, names of axes.
    mesh: Any = AbstractMesh(sizes, AXES, axis_types=(AxisType.Auto,) * len(AXES))
    return mesh


def tpu_mesh(topology: Topology, sizes: tuple[int, ...]) -> Mesh:
    """Lay out the chips of TPU slices as a run on them would.

    Needs libtpu, and the environment `requests.FOR_TPU` from the start of the process.
    """
    from jax.experimental import topologies

    options: dict[str, Any] = {}
    if topology.slices > 1:
        options["num_slices"] = topology.slices
    if topology.per_slice < 4:
        options["chips_per_host_bounds"] = (*topology.shape, 1)[:3]
    if topology.name == "v4":
        # Two cores that are one device, as on the machines.
        options["chip_config_name"] = "megacore"
    described = topologies.get_topology_desc(topology.written, platform="tpu", **options)
    slices, data, fsdp, tensor = sizes
    return make_mesh(data=data, fsdp=fsdp, tensor=tensor, slices=slices, devices=list(described.devices))


def links(mesh: Mesh, topology: Topology) -> dict[str, float]:
    """How many links' bandwidth, one way, an exchange along each axis, or axes together, can use: "fsdp", "data+fsdp".

    Devices that fill a box of the torus exchange along all its sides at once: a side counts two where it wraps round,
    as a ring has two directions, and one where it does not. Others share links with their neighbours' exchanges: the
    two of a ring, over the mean hops from one to the next.
    """
    grid = np.array(mesh.devices)
    found = {}
    names = mesh.axis_names
    for count in range(1, len(names)):
        for axes in itertools.combinations(names[1:], count):
            places = [names.index(axis) for axis in axes]
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
