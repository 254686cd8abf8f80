"""The order of devices on a TPU slice, and how many hops its rings have: from descriptions of slices that are not here.

In a process of its own: the compiler for TPUs, which describes slices, is set up before JAX starts. Seen to fail: with
sides that are no rings taken for rings.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from jax.sharding import Mesh

from podium.parallel.mesh import make_mesh
from podium.parallel.topology import Hops, ring_hops

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-16",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}
PROGRAM = """
import json, sys
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh
from podium.config.platform import RolloutMeshConfig
from podium.parallel.mesh import AXES, make_mesh
from podium.parallel.rollout import with_rollout
from podium.parallel.topology import mesh_hops, ring_hops

found = {}
for name, slices, sizes, shared in json.loads(sys.argv[1]):
    options = {"num_slices": slices} if slices > 1 else {}
    devices = list(topologies.get_topology_desc(name, platform="tpu", **options).devices)
    mesh = make_mesh(**sizes, devices=devices)
    split, layout = with_rollout(mesh, RolloutMeshConfig(tensor=shared))
    assert [d.id for d in split.devices.flat] == [d.id for d in mesh.devices.flat]
    plain = Mesh(np.array(devices).reshape(mesh.devices.shape), AXES)
    found[f"{name} x {slices}"] = {
        "shape": list(mesh.devices.shape),
        **mesh_hops(split, layout),
        "plain": ring_hops(plain, ["fsdp"]),
        "slice_of": sorted({len({getattr(d, "slice_index", 0) for d in part.flat}) for part in mesh.devices}),
    }
print(json.dumps(found))
"""
CASES = [
    ("v5e:4x4", 1, {"fsdp": 16}, 8),
    ("v5e:8x8", 1, {"fsdp": 16, "tensor": 4}, 8),
    ("v5p:4x4x8", 1, {"fsdp": 32, "tensor": 4}, 4),
    ("v5e:4x4", 2, {"fsdp": 16}, 4),
]


@pytest.fixture(scope="module")
def found() -> dict[str, dict]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(CASES)],
        env=os.environ | ENVIRONMENT | {"PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), *sys.path]))},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_the_training_ring_of_a_small_slice_goes_from_neighbour_to_neighbour(found: dict[str, dict]) -> None:
    slice_ = found["v5e:4x4 x 1"]
    assert slice_["fsdp"] == [1.0, 1]
    assert slice_["plain"] == [1.875, 6], "JAX's own order, which a reshape keeps"
    assert slice_["rollout"][0] < 1.5, "eight in a row of the training ring"


def test_larger_slices_have_shorter_rings_than_a_reshape(found: dict[str, dict]) -> None:
    for name in ("v5e:8x8 x 1", "v5p:4x4x8 x 1"):
        assert found[name]["fsdp"][0] < found[name]["plain"][0], name
    assert found["v5p:4x4x8 x 1"]["tensor"] == [1.0, 1]


def test_slices_are_an_axis_of_their_own(found: dict[str, dict]) -> None:
    two = found["v5e:4x4 x 2"]
    assert two["shape"] == [2, 1, 16, 1]
    assert two["slice_of"] == [1], "no ring of fsdp leaves its slice"
    assert two["fsdp"] == [1.0, 1]


def chips(kind: str, *shape: int) -> np.ndarray:
    grid = np.empty(shape, object)
    for place in np.ndindex(*shape):
        grid[place] = SimpleNamespace(device_kind=kind, coords=(*place, *(0,) * (3 - len(shape))))
    return grid


def hops(kind: str, shape: tuple[int, ...]) -> Hops | None:
    grid = chips(kind, *shape).reshape(1, 1, -1, shape[-1])
    mesh = SimpleNamespace(devices=grid, axis_names=("slice", "data", "fsdp", "tensor"))
    mesh.shape = dict(zip(mesh.axis_names, grid.shape, strict=True))
    return ring_hops(mesh, ["tensor"])


@pytest.mark.parametrize(
    ("kind", "shape", "expected"),
    [
        ("TPU v5 lite", (4, 4), Hops(1.5, 3)),
        ("TPU v5 lite", (4, 16), Hops(1.0, 1)),
        ("TPU v5", (4, 4, 4), Hops(1.0, 1)),
        ("TPU v5", (2, 2, 4), Hops(1.5, 3)),
    ],
)
def test_a_side_is_a_ring_where_its_ends_are_linked(kind: str, shape: tuple[int, ...], expected: Hops) -> None:
    assert hops(kind, shape) == expected


def test_devices_without_a_torus_have_no_hops() -> None:
    mesh = make_mesh(data=2, fsdp=4)
    assert isinstance(mesh, Mesh) and ring_hops(mesh, ["fsdp"]) is None
    assert [device.id for device in mesh.devices.flat] == [device.id for device in jax.devices()]
