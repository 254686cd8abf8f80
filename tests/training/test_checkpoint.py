"""podium.training.checkpoint: bit-equal states, other layouts, kills, full disks, other models."""

import logging
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from podium.errors import UserError
from podium.training.checkpoint import Checkpoints


def make_state(scale=1.0):
    """Make one leaf of every kind that a run has."""
    params = {"kernel": scale * jax.random.normal(jax.random.key(1), (8, 4)), "half": jnp.ones(3, jnp.bfloat16) / 3}
    return {
        "params": params,
        "optimizer": optax.adamw(0.1).init(params),
        "key": jax.random.key(7),
        "coefficient": jnp.float32(0.1),
        "position": 12345678901,
        "nothing": None,
        "no_adapter": {},
    }


def bits(state):
    """List path and bytes of every leaf."""
    leaves = jax.tree_util.tree_leaves_with_path(state)
    numbers = [(path, jax.random.key_data(x) if is_key(x) else x) for path, x in leaves]
    return [(jax.tree_util.keystr(path), np.asarray(x).dtype, np.asarray(x).tobytes()) for path, x in numbers]


def is_key(x):
    return isinstance(x, jax.Array) and jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)


def test_what_comes_back_is_equal_to_the_bit(tmp_path):
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        checkpoints.save(3, make_state(), {"epoch": 2, "rng": [1, 2], "name": "a"})
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        restored = checkpoints.restore_latest(make_state(scale=0.0))
    assert restored.step == 3
    assert restored.extra == {"epoch": 2, "rng": [1, 2], "name": "a"}
    assert jax.tree.structure(restored.state) == jax.tree.structure(make_state())
    assert bits(restored.state) == bits(make_state())
    assert bits(restored.state) != bits(make_state(scale=2.0))


def test_there_may_be_nothing_to_restore(tmp_path):
    with Checkpoints(tmp_path / "new", keep=1) as checkpoints:
        assert checkpoints.restore_latest(make_state()) is None


def test_the_newest_are_kept_and_the_newest_is_restored(tmp_path):
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        for step in (9, 10, 100):
            checkpoints.save(step, {"x": jnp.float32(step)}, {})
        assert checkpoints.steps == [10, 100]
        assert checkpoints.restore_latest({"x": jnp.float32(0)}).state["x"] == 100


@pytest.mark.parametrize("axes", [("fsdp", None), (None, "tensor"), (None, None)])
def test_a_state_comes_back_in_the_layout_asked_for(tmp_path, axes):
    before = jax.make_mesh((8,), ("fsdp",), axis_types=(AxisType.Auto,))
    after = jax.make_mesh((2, 4), ("fsdp", "tensor"), axis_types=(AxisType.Auto,) * 2)
    state = make_state()
    rows = jax.device_put(state["params"]["kernel"], NamedSharding(before, PartitionSpec("fsdp")))
    wanted = NamedSharding(after, PartitionSpec(*axes))
    whole = NamedSharding(after, PartitionSpec())
    abstract = {
        "kernel": jax.ShapeDtypeStruct(rows.shape, rows.dtype, sharding=wanted),
        "key": jax.ShapeDtypeStruct((), state["key"].dtype, sharding=whole),
    }
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        checkpoints.save(1, {"kernel": rows, "key": state["key"]}, {})
        restored = checkpoints.restore_latest(abstract).state
    assert restored["kernel"].sharding == wanted
    assert len(restored["key"].sharding.device_set) == 8
    assert bits(restored) == bits({"kernel": rows, "key": state["key"]})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"params": {"kernel": jnp.ones((8, 5))}}, r"params\.kernel is float32\[8, 4\] there and float32\[8, 5\] here"),
        ({"params": {"kernel": jnp.ones((8, 4), jnp.bfloat16)}}, r"float32\[8, 4\] there and bfloat16\[8, 4\] here"),
        ({"adapter": jnp.ones(2)}, r"adapter is absent there and float32\[2\] here"),
        ({"params": {}}, r"params\.kernel is float32\[8, 4\] there and absent here"),
    ],
)
def test_a_checkpoint_of_another_model_is_refused_by_name(tmp_path, change, message):
    state = {"params": {"kernel": jnp.ones((8, 4))}, "key": jax.random.key(0)}
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        checkpoints.save(4, state, {})
        with pytest.raises(UserError, match=message) as caught:
            checkpoints.restore_latest(state | change)
    assert "step 4" in str(caught.value)
    assert "resume: never" in str(caught.value)
    assert "\n" not in str(caught.value)


# The extra values are written last. Reading this one ends the process there, as a kill would: no handler runs.
RUN = """
import os, signal, sys
import jax, jax.numpy as jnp, optax
from podium.training.checkpoint import Checkpoints

class Bomb(dict):
    def items(self):
        os.kill(os.getpid(), signal.SIGKILL)

folder, last, bomb = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
optimizer = optax.adam(0.1)

@jax.jit
def step(state):
    key, now = jax.random.split(state["key"])
    updates, slots = optimizer.update(state["x"] + jax.random.normal(now, (1000,)), state["slots"])
    return {"x": state["x"] + updates, "slots": slots, "key": key}

state = {"x": jnp.ones(1000), "slots": optimizer.init(jnp.ones(1000)), "key": jax.random.key(0)}
with Checkpoints(folder, keep=2) as checkpoints:
    done = checkpoints.restore_latest(state)
    first, state = (done.step + 1, done.state) if done else (1, state)
    print("from", first)
    for number in range(first, last + 1):
        state = step(state)
        checkpoints.save(number, state, {"bomb": Bomb(a=1) if number == bomb else {}})
print("end", state["x"].tobytes().hex() if hasattr(state["x"], "tobytes") else bytes(state["x"].__array__()).hex())
"""


def run(folder, *, last, bomb=0):
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", RUN, str(folder), str(last), str(bomb)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=100)


def test_a_run_killed_inside_a_save_ends_as_if_it_had_not_been(tmp_path):
    whole = run(tmp_path / "whole", last=5)
    assert whole.returncode == 0, whole.stderr
    killed = run(tmp_path / "killed", last=5, bomb=4)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    # Something of step 4 is on the disk, and it is not taken for a checkpoint.
    assert any(path.name.startswith("4.") for path in (tmp_path / "killed").iterdir())
    resumed = run(tmp_path / "killed", last=5)
    assert resumed.stdout.splitlines()[0] == "from 4"
    assert resumed.stdout.splitlines()[-1] == whole.stdout.splitlines()[-1]
    assert sorted(path.name for path in (tmp_path / "killed").iterdir()) == ["4", "5"]


# A limit on the size of a file stands for the full disk: it needs no privileges, and the failure is the same write().
FULL = """
import os, resource, signal, sys
import jax
from podium.errors import UserError
from podium.training.checkpoint import Checkpoints

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
state = {"x": jax.random.normal(jax.random.key(0), (1_000_000,))}
with Checkpoints(sys.argv[1], keep=2) as checkpoints:
    checkpoints.save(1, state, {"a": 1})
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
    try:
        checkpoints.save(2, {"x": state["x"] + 1}, {"a": 2})
    except UserError as error:
        print(error)
    print(os.listdir(sys.argv[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    restored = checkpoints.restore_latest(state)
    print(restored.step, restored.extra, bool((restored.state["x"] == state["x"]).all()))
    checkpoints.save(2, state, {"a": 3})
    print(checkpoints.restore_latest(state).extra)
"""


def test_a_full_disk_is_one_message_and_leaves_the_last_checkpoint(tmp_path):
    folder = tmp_path / "run"
    ended = subprocess.run([sys.executable, "-c", FULL, str(folder)], capture_output=True, text=True, timeout=100)
    assert ended.returncode == 0, ended.stderr
    message, left, intact, again = ended.stdout.splitlines()
    assert message.startswith(f"{folder}: no room for the checkpoint of step 2 (4 MB)")
    assert "the checkpoint of step 1 is intact" in message
    assert left == "['1']"
    assert intact == "1 {'a': 1} True"
    assert again == "{'a': 3}"
    assert "Traceback" not in ended.stderr
    assert sorted(path.name for path in folder.iterdir()) == ["1", "2"]


def test_writes_that_end_after_a_failed_save_say_nothing(tmp_path, monkeypatch, caplog):
    """Writes of a checkpoint on a full disk end after the loop of asyncio, with a trace each, or fail unheard."""
    said = []
    asyncio = logging.getLogger("asyncio")
    monkeypatch.setattr(asyncio, "filters", [])
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: said.append(str(unraisable.exc_value)))
    with Checkpoints(tmp_path, keep=1) as checkpoints:

        def fail(*_, **__):
            sys.unraisablehook(SimpleNamespace(exc_value=RuntimeError("Event loop is closed")))
            raise ValueError("RESOURCE_EXHAUSTED: Error writing [os_error_code='28']")

        checkpoints.save(1, {"x": jnp.ones(2)}, {})
        assert sys.unraisablehook.__name__ == "<lambda>"
        monkeypatch.setattr(checkpoints._manager, "save", fail)
        with pytest.raises(UserError, match="No space left on the disk; free some, or choose another output folder"):
            checkpoints.save(2, {"x": jnp.ones(2)}, {})
        for text in ("Event loop is closed", "something else"):
            sys.unraisablehook(SimpleNamespace(exc_value=RuntimeError(text)))
        for kind in ("Future", "Task", "_GatheringFuture"):
            asyncio.error(f"{kind} exception was never retrieved\nfuture: <{kind} finished>")
        asyncio.error("another thing")
    assert said == ["something else"]
    assert [record.getMessage() for record in caplog.records if record.name == "asyncio"] == ["another thing"]


def test_other_failures_keep_their_own_type(tmp_path):
    with Checkpoints(tmp_path, keep=1) as checkpoints, pytest.raises(TypeError, match="set"):
        checkpoints.save(1, {"x": jnp.ones(2)}, {"a": {1, 2}})
    assert Path(tmp_path).is_dir()
