"""Where the chips of a mesh lie in the torus: links that an exchange can use."""

import itertools
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from podium.parallel.mesh import AXES
from podium.planning import meshes
from podium.planning.topology import Topology, parse


def laid_out(topology: Topology, sizes: tuple[int, int, int]) -> Any:
    """Chips in the order of their coordinates, the last side fastest, as a mesh of data x fsdp x tensor."""
    sides = [range(side) for side in (*topology.shape, 1)[:3]]
    chips = np.empty(topology.chips, object)
    chips[:] = [SimpleNamespace(coords=place) for place in itertools.product(*sides)]
    shape = (1, *sizes)
    return SimpleNamespace(devices=chips.reshape(shape), shape=dict(zip(AXES, shape, strict=True)), axis_names=AXES)


@pytest.mark.parametrize(
    ("topology", "sizes", "links"),
    [
        # Rows and columns of a grid without wrap-around.
        ("v5e:4x4", (1, 4, 4), {"fsdp": 1, "tensor": 1, "fsdp+tensor": 2}),
        # A cube wraps round on all sides.
        ("v5p:4x4x4", (1, 16, 4), {"fsdp": 4, "tensor": 2, "fsdp+tensor": 6}),
        # A side of 16 wraps round; a half of it does not.
        ("v5e:16x16", (2, 8, 16), {"data": None, "tensor": 2, "fsdp+tensor": 3}),
    ],
)
def test_links(topology: str, sizes: tuple[int, int, int], links: dict) -> None:
    chips = parse(topology)
    counted = meshes.links(laid_out(chips, sizes), chips)
    for axis, value in links.items():
        assert value is None or counted[axis] == pytest.approx(value), axis


def test_devices_apart_share_the_links_of_a_ring() -> None:
    """Two halves of a side of 16: partners are 8 hops from each other."""
    chips = parse("v5e:16x16")
    assert meshes.links(laid_out(chips, (2, 8, 16)), chips)["data"] == pytest.approx(2 / 8)


def test_a_mesh_of_sizes_has_no_places() -> None:
    mesh = meshes.shape_mesh((1, 2, 2, 2))
    assert (dict(mesh.shape), mesh.size) == ({"slice": 1, "data": 2, "fsdp": 2, "tensor": 2}, 8)
