"""podium.training.checkpoint: bit-equal states, other layouts, kills, full disks, other models."""

import asyncio
import errno
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from podium.errors import UserError
from podium.training.checkpoint import Checkpoints
from podium.training.quiet import Quiet
from support.s3_server import S3Server


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


@pytest.fixture
def store(monkeypatch):
    """A server of s3://, to which the clients of this process turn."""
    with S3Server() as server:
        server.use(monkeypatch)
        yield server


@pytest.fixture(params=["folder", "s3"])
def place(request, tmp_path):
    """Where checkpoints are kept."""
    if request.param == "s3":
        request.getfixturevalue("store")
        return "s3://runs/policy/.work/checkpoints"
    return str(tmp_path / "checkpoints")


def test_what_comes_back_is_equal_to_the_bit(place):
    with Checkpoints(place, keep=1) as checkpoints:
        checkpoints.save(3, make_state(), {"epoch": 2, "rng": [1, 2], "name": "a"})
    with Checkpoints(place, keep=1) as checkpoints:
        restored = checkpoints.restore_latest(make_state(scale=0.0))
    assert restored.step == 3
    assert restored.extra == {"epoch": 2, "rng": [1, 2], "name": "a"}
    assert jax.tree.structure(restored.state) == jax.tree.structure(make_state())
    assert bits(restored.state) == bits(make_state())
    assert bits(restored.state) != bits(make_state(scale=2.0))


def test_there_may_be_nothing_to_restore(place):
    with Checkpoints(place, keep=1) as checkpoints:
        assert checkpoints.restore_latest(make_state()) is None


def test_the_newest_are_kept_and_the_newest_is_restored(place):
    with Checkpoints(place, keep=2) as checkpoints:
        for step in (9, 10, 100):
            checkpoints.save(step, {"x": jnp.float32(step)}, {})
        assert checkpoints.steps == [10, 100]
        assert checkpoints.restore_latest({"x": jnp.float32(0)}).state["x"] == 100
    with Checkpoints(place, keep=2) as checkpoints:
        assert checkpoints.steps == [10, 100]


@pytest.mark.parametrize("axes", [("fsdp",), ()])
def test_steps_that_run_during_a_save_do_not_reach_into_it(place, store, axes):
    """They write their results into the arrays of the state that is being saved: its bytes are on their way yet."""
    mesh = jax.make_mesh((8,), ("fsdp",), axis_types=(AxisType.Auto,))
    start = np.random.default_rng(0).normal(size=(2048, 1024)).astype(np.float32)
    state = {"x": jax.device_put(start, NamedSharding(mesh, PartitionSpec(*axes))), "alone": jnp.asarray(start)}
    step = jax.jit(lambda state: jax.tree.map(lambda x: 0.5 * x + 1.0, state), donate_argnums=0)
    store.refuses = lambda method, name: time.sleep(0.1 * (method == "PUT"))
    with Checkpoints(place, keep=1) as checkpoints:
        checkpoints.save(1, state, {})
        for _ in range(4):
            state = jax.block_until_ready(step(state))
        restored = checkpoints.restore_latest(state).state
    for name in ("x", "alone"):
        assert np.asarray(restored[name]).tobytes() == start.tobytes()
        assert np.asarray(state[name]).tobytes() != start.tobytes()


def test_the_extra_values_are_those_of_the_save(tmp_path, monkeypatch):
    write, extra = ocp.JsonCheckpointHandler._save_fn, {"rng": [1, 2]}

    async def late(*arguments):
        await asyncio.sleep(0.3)
        await write(*arguments)

    monkeypatch.setattr(ocp.JsonCheckpointHandler, "_save_fn", late)
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        checkpoints.save(1, {"x": jnp.float32(1)}, extra)
        extra["rng"][0] = 5
        assert checkpoints.restore_latest({"x": jnp.float32(0)}).extra == {"rng": [1, 2]}


@pytest.mark.parametrize("lost", ["complete.json", "x/c/0"])
def test_a_save_that_does_not_reach_a_store_is_told_and_never_taken_for_one(store, monkeypatch, lost):
    monkeypatch.setattr("podium.training.object_store._RETRIES", {"max_retries": 1})
    place, state = "s3://runs/policy", {"x": jnp.ones(3)}
    with Checkpoints(place, keep=2) as checkpoints:
        checkpoints.save(1, state, {})
        checkpoints.wait()
        store.refuses = lambda method, name: method == "PUT" and name == f"runs/policy/2/{lost}"
        checkpoints.save(2, {"x": state["x"] + 1}, {})
        with pytest.raises(UserError, match="s3://runs/policy: the checkpoint of step 2 cannot be written") as caught:
            checkpoints.wait()
        assert "the checkpoint of step 1 is intact" in str(caught.value)
        assert "\n" not in str(caught.value)
        assert not [name for name in store.objects if name.startswith("runs/policy/2/")]


def test_what_a_killed_save_left_in_a_store_goes_with_the_next_run(store):
    place, state = "s3://runs/policy", {"x": jnp.ones(3)}
    with Checkpoints(place, keep=2) as checkpoints:
        for step in (1, 2):
            checkpoints.save(step, state, {})
    del store.objects["runs/policy/2/complete.json"]
    with Checkpoints(place, keep=2) as checkpoints:
        assert checkpoints.restore_latest(state).step == 1
    assert all(name.startswith("runs/policy/1/") for name in store.objects)


def test_a_store_that_is_not_there_is_said_before_the_first_step(store, monkeypatch):
    store.refuses = lambda method, name: True
    with pytest.raises(UserError, match="s3://runs/policy cannot be reached"):
        Checkpoints("s3://runs/policy", keep=2)


@pytest.mark.parametrize("axes", [("fsdp", None), (None, "tensor"), (None, None)])
def test_a_state_comes_back_in_the_layout_asked_for(place, axes):
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
    with Checkpoints(place, keep=1) as checkpoints:
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
def test_a_checkpoint_of_another_model_is_refused_by_name(place, change, message):
    state = {"params": {"kernel": jnp.ones((8, 4))}, "key": jax.random.key(0)}
    with Checkpoints(place, keep=1) as checkpoints:
        checkpoints.save(4, state, {})
        with pytest.raises(UserError, match=message) as caught:
            checkpoints.restore_latest(state | change)
    assert "step 4" in str(caught.value)
    assert "resume: never" in str(caught.value)
    assert "\n" not in str(caught.value)


# Writing the extra values ends the process there, as a kill would: no handler runs.
RUN = """
import os, signal, sys
import jax, jax.numpy as jnp, optax
import orbax.checkpoint as ocp
from podium.training.checkpoint import Checkpoints

async def explode(*_):
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
        if number == bomb:
            checkpoints.wait()
            ocp.JsonCheckpointHandler._save_fn = explode
        checkpoints.save(number, state, {})
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
    checkpoints.wait()
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
    try:
        checkpoints.save(2, {"x": state["x"] + 1}, {"a": 2})
        ask = getattr(checkpoints, sys.argv[2])
        while not ask():
            pass
    except UserError as error:
        print(error)
    print(os.listdir(sys.argv[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    restored = checkpoints.restore_latest(state)
    print(restored.step, restored.extra, bool((restored.state["x"] == state["x"]).all()))
    checkpoints.save(2, state, {"a": 3})
    print(checkpoints.restore_latest(state).extra)
"""


@pytest.mark.parametrize("asked", ["wait", "check"])
def test_a_full_disk_is_one_message_and_leaves_the_last_checkpoint(tmp_path, asked):
    folder = tmp_path / "run"
    command = [sys.executable, "-c", FULL, str(folder), asked]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert ended.returncode == 0, ended.stderr
    message, left, intact, again = ended.stdout.splitlines()
    assert message.startswith(f"{folder}: no room for the checkpoint of step 2 (4 MB)")
    assert "the checkpoint of step 1 is intact" in message
    assert left == "['1']"
    assert intact == "1 {'a': 1} True"
    assert again == "{'a': 3}"
    assert "Traceback" not in ended.stderr
    assert sorted(path.name for path in folder.iterdir()) == ["1", "2"]


def test_writes_that_end_after_a_failed_save_say_nothing(monkeypatch, caplog):
    """Writes of a checkpoint on a full disk end after the loop of asyncio, with a trace each, or fail unheard."""
    said = []
    logger = logging.getLogger("asyncio")
    monkeypatch.setattr(logger, "filters", [])
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: said.append(str(unraisable.exc_value)))
    quiet = Quiet()
    for end in (quiet.end, quiet.fail):
        quiet.begin()
        logging.getLogger("absl").error("a failed write, with its stack")
        sys.unraisablehook(SimpleNamespace(exc_value=RuntimeError("Event loop is closed")))
        end()
        assert (sys.unraisablehook.__name__ == "<lambda>") == (end == quiet.end)
    for text in ("Event loop is closed", "something else"):
        sys.unraisablehook(SimpleNamespace(exc_value=RuntimeError(text)))
    for kind in ("Future", "Task", "_GatheringFuture"):
        logger.error(f"{kind} exception was never retrieved\nfuture: <{kind} finished>")
    logger.error("another thing")
    logging.getLogger("absl").error("of another save")
    assert said == ["something else"]
    assert [record.getMessage() for record in caplog.records] == ["another thing", "of another save"]


def test_a_process_without_rights_is_named_before_the_first_step(tmp_path, monkeypatch):
    """Process 0 may write there."""

    def refuse(path, *_, **__):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    for name, value in (("count", 2), ("index", 1), ("is_common", True), ("is_leader", False)):
        monkeypatch.setattr(f"podium.parallel.distributed.{name}", lambda *_, value=value: value)
    monkeypatch.setattr(Path, "touch", refuse)
    with pytest.raises(
        UserError, match=r"process 1 \(.*\) cannot write its part of the checkpoints: permission denied"
    ):
        Checkpoints(tmp_path, keep=1)


def test_other_failures_keep_their_own_type(tmp_path):
    with Checkpoints(tmp_path, keep=1) as checkpoints, pytest.raises(TypeError, match="set"):
        checkpoints.save(1, {"x": jnp.ones(2)}, {"a": {1, 2}})
    assert Path(tmp_path).is_dir()
