"""Which process of how many this one is: from flags, JAX's variables, Vertex's, or a TPU's. Imports no JAX."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from podium.errors import UserError

# Where JAX's coordination service listens on a TPU's first host, if nothing says otherwise; JAX takes this port too.
TPU_PORT = 8476
JAX_VARIABLES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
FLAGS = ("--coordinator", "--num-processes", "--process-id")


@dataclass(frozen=True)
class Launch:
    """A run's processes.

    Attributes:
        coordinator: HOST:PORT of process 0, where the coordination service listens.
        processes: How many there are.
        index: Which one this is, from 0.
        source: What said so, for messages.
    """

    coordinator: str
    processes: int
    index: int
    source: str


def read_launch(
    coordinator: str | None, processes: int | None, index: int | None, env: Mapping[str, str]
) -> Launch | None:
    """Return this process's place in a run of several, or None for a run of one.

    The first of these that says anything decides: the flags, JAX_COORDINATOR_ADDRESS with its two companions, Vertex's
    CLUSTER_SPEC, the variables of a TPU on GKE (TPU_WORKER_HOSTNAMES, TPU_WORKER_ID, MEGASCALE_*).

    Raises:
        UserError: Something is missing or is no such place.
    """
    flags = (coordinator, processes, index)
    if any(value is not None for value in flags):
        return _checked("flags", FLAGS, flags)
    if any(env.get(name) for name in JAX_VARIABLES):
        address, count, number = (env.get(name) or None for name in JAX_VARIABLES)
        return _checked("environment", JAX_VARIABLES, (address, count, number))
    if env.get("CLUSTER_SPEC"):
        return _vertex(env["CLUSTER_SPEC"])
    if env.get("TPU_WORKER_HOSTNAMES") or env.get("MEGASCALE_COORDINATOR_ADDRESS"):
        return _tpu(env)
    return None


def _checked(source: str, names: tuple[str, str, str], values: tuple[Any, Any, Any]) -> Launch | None:
    missing = [name for name, value in zip(names, values, strict=True) if value is None]
    if missing:
        given = next(name for name, value in zip(names, values, strict=True) if value is not None)
        raise UserError(f"{given} is set without {' and '.join(missing)}; set all three, or none for one process")
    address = str(values[0])
    host, colon, port = address.rpartition(":")
    if not (colon and host and port.isdigit() and 0 < int(port) < 65536):
        raise UserError(f"{names[0]} {address!r}: write HOST:PORT of process 0, such as 10.0.0.1:1234")
    count, index = _number(names[1], values[1]), _number(names[2], values[2])
    if count < 1:
        raise UserError(f"{names[1]} {count}: write the number of processes, 1 or more")
    if not 0 <= index < count:
        raise UserError(f"{names[2]} {index}: {names[1]} is {count}; write 0 to {count - 1}, each once")
    return Launch(address, count, index, source) if count > 1 else None


def _number(name: str, value: Any) -> int:
    try:
        return int(value)
    except ValueError:
        raise UserError(f"{name} {value!r}: is not a whole number") from None


def _vertex(text: str) -> Launch | None:
    """Read the variable that Vertex AI sets for the replicas of a custom job: process 0 is the first pool's first."""
    try:
        spec = json.loads(text)
        pools, task = spec["cluster"], spec["task"]
        hosts = [(name, place) for name in sorted(pools) for place in range(len(pools[name]))]
        first = pools[hosts[0][0]][0]
        index = hosts.index((task["type"], int(task["index"])))
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise UserError(
            f"CLUSTER_SPEC is not what Vertex AI writes ({error!r}); unset it, or set {', '.join(JAX_VARIABLES)}"
        ) from None
    address = first if ":" in first else f"{first}:{TPU_PORT}"
    return Launch(address, len(hosts), index, "CLUSTER_SPEC") if len(hosts) > 1 else None


def _tpu(env: Mapping[str, str]) -> Launch | None:
    """Read what GKE sets on the hosts of a TPU slice, and of several slices that are joined."""
    hosts = [host for host in env.get("TPU_WORKER_HOSTNAMES", "").split(",") if host]
    slices = _number("MEGASCALE_NUM_SLICES", env.get("MEGASCALE_NUM_SLICES") or 1)
    number = _number("MEGASCALE_SLICE_ID", env.get("MEGASCALE_SLICE_ID") or 0)
    worker = _number("TPU_WORKER_ID", env.get("TPU_WORKER_ID") or 0)
    if not hosts:
        raise UserError("MEGASCALE_COORDINATOR_ADDRESS is set without TPU_WORKER_HOSTNAMES; set both")
    if worker >= len(hosts) or number >= slices:
        raise UserError(
            f"TPU_WORKER_ID {worker} of {len(hosts)} hosts, MEGASCALE_SLICE_ID {number} of {slices} slices: "
            "no place in this run; each counts from 0"
        )
    first = (env.get("MEGASCALE_COORDINATOR_ADDRESS") or hosts[0]).split(":")[0]
    count = slices * len(hosts)
    if count == 1:
        return None
    place = number * len(hosts) + worker
    return Launch(f"{first}:{TPU_PORT}", count, place, "TPU_WORKER_HOSTNAMES")
