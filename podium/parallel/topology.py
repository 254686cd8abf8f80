"""How far apart the devices of a mesh are: hops over a TPU slice's own links, for each ring that a program uses."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from podium.parallel.sharding import FSDP, Layout

# A side of a slice is a ring where its two ends are linked: of v5e and v6e a side of 16 chips, which is a whole pod; of
# v4 and v5p all sides, where each is a multiple of 4 chips (Google's pages on the system architecture of each).
_FLAT_RING = 16
_CUBE_RING = 4


class Hops(NamedTuple):
    """Links between neighbours of a ring: mean and largest number, over all rings of an axis."""

    mean: float
    largest: int


def ring_hops(mesh: Mesh, axes: Sequence[str]) -> Hops | None:
    """Count the hops between neighbours of the rings along `axes`, the last of which is the fastest.

    A ring is closed: its last device is a neighbour of its first. None where there is no ring to go round (one device
    along these axes), or no torus: other devices than TPUs, axes that leave a slice.
    """
    names = [name for name in axes if name in mesh.shape]
    places = [mesh.axis_names.index(name) for name in names]
    grid = np.moveaxis(mesh.devices, places, range(-len(places), 0))
    length = int(np.prod([mesh.shape[name] for name in names]))
    rings = grid.reshape(-1, length)
    if length == 1 or not hasattr(rings[0, 0], "coords") or "slice" in names:
        return None
    sides = _sides(mesh.devices.flat)
    hops = [count for ring in rings for count in _around(ring, sides)]
    return Hops(float(np.mean(hops)), max(hops))


def mesh_hops(mesh: Mesh, rollout: Layout | None = None) -> dict[str, Hops]:
    """Count the hops of every ring that a program of this mesh uses: of its axes, and of the weights of a rollout."""
    rings = {"data": ("data",), "fsdp": FSDP, "tensor": ("tensor",)}
    rings |= {} if rollout is None else {"rollout": rollout.weights}
    return {name: hops for name, axes in rings.items() if (hops := ring_hops(mesh, axes)) is not None}


class _Side(NamedTuple):
    """A side of a slice in chips, and whether its ends are linked."""

    chips: int
    ring: bool


def _sides(devices: Iterator[jax.Device]) -> list[_Side]:
    chips = list(devices)
    lengths = [max(along) + 1 for along in zip(*(chip.coords for chip in chips), strict=True)]
    if lengths[-1] == 1 and "lite" in chips[0].device_kind.lower():
        return [_Side(length, length == _FLAT_RING) for length in lengths]
    ring = all(length % _CUBE_RING == 0 for length in lengths)
    return [_Side(length, ring) for length in lengths]


def _around(ring: np.ndarray, sides: Sequence[_Side]) -> Iterator[int]:
    for one, other in zip(ring, np.roll(ring, -1), strict=True):
        yield sum(map(_distance, one.coords, other.coords, sides))


def _distance(first: int, second: int, side: _Side) -> int:
    apart = abs(first - second)
    return min(apart, side.chips - apart) if side.ring else apart
