"""One process of several that keep checkpoints: `checkpoint_process.py INDEX PROCESSES PORT PLACE STEP [full]`.

Restores what is there, prints its step and whether it is as saved, saves STEP of a state cut over all devices, and runs
on in it as a training does. With `full` its files may not grow: a stand-in for a host without room.
"""

import resource
import signal
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from podium.cli.ending import conclude
from podium.parallel import distributed
from podium.parallel.launch import Launch
from podium.training.checkpoint import Checkpoints

ROWS = 512


def expected(step: int) -> np.ndarray:
    """The numbers of the state after a step."""
    return np.random.default_rng(step).normal(size=(ROWS, 256)).astype(np.float32)


def state_of(step: int) -> dict[str, object]:
    """A matrix cut by rows, one copied to all, a random key and a number."""
    mesh = jax.make_mesh((jax.device_count(),), ("fsdp",), axis_types=(AxisType.Auto,))
    rows, whole = NamedSharding(mesh, PartitionSpec("fsdp")), NamedSharding(mesh, PartitionSpec())
    values = expected(step)

    def put(sharding: NamedSharding) -> jax.Array:
        return jax.make_array_from_callback(values.shape, sharding, lambda index: values[index])

    key = jax.jit(lambda: jax.random.key(step), out_shardings=whole)()
    return {"rows": put(rows), "whole": put(whole), "key": key, "step": step}


def is_as_saved(state: dict[str, object], step: int) -> bool:
    """Compare this process's parts with what was saved, bit for bit."""
    parts = [*state["rows"].addressable_shards, *state["whole"].addressable_shards]
    same = all(np.asarray(part.data).tobytes() == expected(step)[part.index].tobytes() for part in parts)
    key = np.asarray(jax.random.key_data(state["key"]).addressable_shards[0].data)
    return same and key.tobytes() == np.asarray(jax.random.key_data(jax.random.key(step))).tobytes()


def main(place: str, step: int, full: bool) -> None:
    """Restore, save, and go on."""
    with Checkpoints(place, keep=2) as checkpoints:
        restored = checkpoints.restore_latest(state_of(0))
        print("restored", restored and (restored.step, restored.extra, is_as_saved(restored.state, restored.step)))
        if full:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY))
        state = state_of(step)
        change = jax.jit(lambda x: 0.5 * x + jnp.float32(1), donate_argnums=0)
        checkpoints.save(step, state, {"of": step})
        for _ in range(20):
            state["rows"], state["whole"] = change(state["rows"]), change(state["whole"])
            jax.block_until_ready(state["rows"])
            checkpoints.check()
            time.sleep(0.05)


if __name__ == "__main__":
    index, processes, port = map(int, sys.argv[1:4])
    launch = Launch(f"localhost:{port}", processes, index, "test") if processes > 1 else None
    with distributed.processes(launch, start_timeout=60, heartbeat_timeout=10, conclude=conclude):
        main(sys.argv[4], int(sys.argv[5]), "full" in sys.argv[6:])
