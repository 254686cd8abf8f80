"""Where a process learns its place in a run of several."""

import json

import pytest

from podium.errors import UserError
from podium.parallel.launch import Launch, read_launch

JAX = {"JAX_COORDINATOR_ADDRESS": "10.0.0.1:1234", "JAX_NUM_PROCESSES": "4", "JAX_PROCESS_ID": "3"}
VERTEX = {
    "CLUSTER_SPEC": json.dumps(
        {
            "cluster": {"workerpool0": ["main-0:2222"], "workerpool1": ["work-0:2222", "work-1:2222"]},
            "task": {"type": "workerpool1", "index": 1},
        }
    )
}
TPU = {"TPU_WORKER_HOSTNAMES": "host-0.pod,host-1.pod", "TPU_WORKER_ID": "1"}
SLICES = TPU | {
    "MEGASCALE_COORDINATOR_ADDRESS": "slice-0-host-0:8080",
    "MEGASCALE_NUM_SLICES": "3",
    "MEGASCALE_SLICE_ID": "2",
}


@pytest.mark.parametrize(
    ("flags", "env", "expected"),
    [
        ((None, None, None), {}, None),
        (("h:1", 2, 0), JAX | VERTEX | TPU, Launch("h:1", 2, 0, "flags")),
        ((None, None, None), JAX | VERTEX | TPU, Launch("10.0.0.1:1234", 4, 3, "environment")),
        ((None, None, None), VERTEX | TPU, Launch("main-0:2222", 3, 2, "CLUSTER_SPEC")),
        ((None, None, None), TPU, Launch("host-0.pod:8476", 2, 1, "TPU_WORKER_HOSTNAMES")),
        ((None, None, None), SLICES, Launch("slice-0-host-0:8476", 6, 5, "TPU_WORKER_HOSTNAMES")),
        # One host needs no others, whatever its machine's variables are.
        ((None, None, None), {"TPU_WORKER_HOSTNAMES": "localhost", "TPU_WORKER_ID": "0"}, None),
        (("h:1", 1, 0), {}, None),
        (("[::1]:80", 2, 1), {}, Launch("[::1]:80", 2, 1, "flags")),
    ],
)
def test_the_first_that_says_anything_decides(flags: tuple, env: dict[str, str], expected: Launch | None) -> None:
    assert read_launch(*flags, env) == expected


@pytest.mark.parametrize(
    ("flags", "env", "said"),
    [
        (("h:1", 2, None), {}, "--coordinator is set without --process-id"),
        ((None, None, 0), {}, "--process-id is set without --coordinator and --num-processes"),
        (("h:1", 2, 2), {}, "--process-id 2: --num-processes is 2; write 0 to 1"),
        (("h:1", 2, -1), {}, "--process-id -1"),
        (("h:1", 0, 0), {}, "--num-processes 0"),
        (("h", 2, 0), {}, "write HOST:PORT"),
        (("h:99999", 2, 0), {}, "write HOST:PORT"),
        ((None, None, None), JAX | {"JAX_PROCESS_ID": "x"}, "JAX_PROCESS_ID 'x': is not a whole number"),
        ((None, None, None), JAX | {"JAX_NUM_PROCESSES": ""}, "is set without JAX_NUM_PROCESSES"),
        ((None, None, None), {"CLUSTER_SPEC": "{"}, "CLUSTER_SPEC is not what Vertex AI writes"),
        ((None, None, None), TPU | {"TPU_WORKER_ID": "2"}, "TPU_WORKER_ID 2 of 2 hosts"),
        ((None, None, None), SLICES | {"MEGASCALE_SLICE_ID": "3"}, "MEGASCALE_SLICE_ID 3 of 3 slices"),
        ((None, None, None), {"MEGASCALE_COORDINATOR_ADDRESS": "h"}, "without TPU_WORKER_HOSTNAMES"),
    ],
)
def test_what_is_no_place_is_refused_by_name(flags: tuple, env: dict[str, str], said: str) -> None:
    with pytest.raises(UserError) as error:
        read_launch(*flags, env)
    assert said in str(error.value)
    assert len(str(error.value).splitlines()) == 1
