"""The processes of one run: how they start, decide together, and hear of each other's end.

What hangs on a clock, a signal, a disk or the network is decided by process 0 and told to all: processes that decided
apart would wait for each other for ever. What is decided travels through JAX's coordination service, which has limits
of time, and not through the devices, whose collectives have none. Beside this module only checkpoints and the saving of
weights ask which process they are in. With one process everything here is a plain call.
"""

import contextlib
import json
import os
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from podium.errors import ExitCode, GatesFailed, Terminated, UserError
from podium.parallel.launch import Launch
from podium.parallel.meeting import meet

Value = TypeVar("Value")

# Seconds that process 0 may take over what the others wait for: reading digests, clearing a folder.
DECISION_S = 600.0
# How long a dying process waits for the others to hear of it, and how often they listen.
FAREWELL_S, LISTEN_S = 5.0, 1.0
_ENDED, _CALLS = "podium/ended", "podium/calls"
_RAISES: dict[str, type[Exception]] = {kind.__name__: kind for kind in (UserError, GatesFailed)}
# How XLA's collectives on CPUs, and JAX's coordination service, say that another process is gone.
_GONE = ("Gloo", "Connection closed by peer", "Connection reset", "heartbeat", "coordination service", "Socket closed")


@dataclass
class _Run:
    """This process's place in a run of several, and what counts the exchanges: all processes make the same ones."""

    launch: Launch
    client: Any
    exchanges: int = 0
    over: threading.Event = field(default_factory=threading.Event)

    def exchange(self, kind: str) -> str:
        self.exchanges += 1
        return f"podium/{kind}/{self.exchanges}"


_run: _Run | None = None


def count() -> int:
    """Return how many processes the run has."""
    return 1 if _run is None else _run.launch.processes


def index() -> int:
    """Return which process this is, from 0: for names of files alone."""
    return 0 if _run is None else _run.launch.index


def is_leader() -> bool:
    """Tell whether this is process 0, which writes for all."""
    return _run is None or _run.launch.index == 0


@contextlib.contextmanager
def processes(
    launch: Launch | None,
    *,
    start_timeout: float,
    heartbeat_timeout: float,
    conclude: Callable[[BaseException], int],
    saves: bool = True,
) -> Iterator[None]:
    """Join the processes of a run; without a launch there is this one.

    `conclude` prints an error and gives the exit code: a process that fails tells the others, then leaves without
    waiting for them. Where the run `saves`, SIGTERM is a notice to all (`asked_to_stop`); else such a failure.

    Raises:
        UserError: The processes do not meet within `start_timeout` seconds.
    """
    global _run
    if launch is None:
        yield
        return
    _run = _start(launch, start_timeout, heartbeat_timeout)
    import jax

    listener = threading.Thread(target=_listen, args=(_run,), name="podium-peers", daemon=True)
    listener.start()
    try:
        if not saves:
            # In place of JAX's own handler, which hears it for whoever asks: here nobody does.
            signal.signal(signal.SIGTERM, _terminate)
        # Now, in all of them: the first use of a device waits for every process, also where one alone then computes.
        jax.devices()
        yield
        # Whoever is through waits for the others: it may still hold what they ask for.
        barrier("done", DECISION_S)
    except BaseException as error:
        _leave(_run, error, heartbeat_timeout, conclude)
    if not saves:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # Not left to the end of Python, which ends threads inside C++ by ending the process.
    _run.over.set()
    listener.join()
    jax.distributed.shutdown()
    _run = None


def _terminate(number: int, frame: object) -> NoReturn:
    signal.signal(number, signal.SIG_DFL)
    raise Terminated("SIGTERM")


def _start(launch: Launch, start_timeout: float, heartbeat_timeout: float) -> _Run:
    import jax

    who = f"process {launch.index} of {launch.processes}"
    print(f"podium: {who}, coordinator {launch.coordinator} (from {launch.source})", file=sys.stderr, flush=True)
    meet(launch, start_timeout)
    jax.distributed.initialize(
        launch.coordinator,
        launch.processes,
        launch.index,
        # With everything said, looking for a cluster finds nothing better, and may fail.
        cluster_detection_method="deactivate",
        initialization_timeout=int(start_timeout),
        heartbeat_timeout_seconds=int(heartbeat_timeout),
        shutdown_timeout_seconds=int(heartbeat_timeout),
    )
    # Orbax asks JAX for the same client; there is no public name for it.
    from jax._src.distributed import global_state

    return _Run(launch, global_state.client)


def lead(function: Callable[[], Value], *, limit: float = DECISION_S) -> Value:
    """Let process 0 alone call a function, and give all processes its result, which must be of JSON's types.

    What it raises for the user, all processes raise.
    """
    if _run is None:
        return function()
    key = _run.exchange("lead")
    if not is_leader():
        answer = json.loads(_get(key, limit))
        if "error" in answer:
            raise _RAISES.get(answer["error"], RuntimeError)(answer["text"])
        value: Value = answer["value"]
        return value
    try:
        value = function()
    except Exception as error:
        _set(key, {"error": type(error).__name__, "text": str(error)})
        raise
    _set(key, {"value": value})
    return value


def all_gather_json(value: Any, *, limit: float = DECISION_S) -> list[Any]:
    """Give all processes the values of all of them, which must be of JSON's types, by process."""
    if _run is None:
        return [value]
    key = _run.exchange("gather")
    _set(f"{key}/{_run.launch.index}", value)
    return [json.loads(_get(f"{key}/{index}", limit)) for index in range(_run.launch.processes)]


def decided(wish: bool) -> bool:
    """Give all processes what process 0 wishes: whoever looks at a clock of its own would part from the others."""
    return bool(lead(lambda: bool(wish)))


@contextlib.contextmanager
def folder_of_followers() -> Iterator[Path | None]:
    """Give every process but the first a folder of its own, for outputs that only process 0 keeps; it goes at the end.

    So a stage is written once, for a process that keeps what it writes.
    """
    if is_leader():
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="podium-") as folder:
        yield Path(folder)


def barrier(name: str, limit: float) -> None:
    """Wait until all processes are here, at most `limit` seconds."""
    if _run is not None:
        _run.client.wait_at_barrier(_run.exchange(name), int(1000 * limit))


def agree(values: Any, describe: Callable[[Any, Any], str]) -> None:
    """Compare JSON-able values with those of process 0.

    Raises:
        UserError: They differ: `describe(of process 0, of another)` says how, for the first of each.
    """
    hosts = all_gather_json({"host": socket.gethostname(), "values": values})
    first = hosts[0]["values"]
    lines = [
        f"process {index} ({host['host']}) was given something else than process 0 ({hosts[0]['host']}): "
        f"{describe(first, host['values'])}; start all processes with the same"
        for index, host in enumerate(hosts)
        if host["values"] != first
    ]
    if lines:
        raise UserError("\n".join(lines[:2]))


def is_common(folder: str | os.PathLike[str]) -> bool:
    """Tell whether a folder is the same for all processes: process 0 writes into it what the others look for."""
    if _run is None or "://" in os.fspath(folder):
        return True
    token = f".common-{os.urandom(8).hex()}"

    def write() -> str:
        Path(folder).mkdir(parents=True, exist_ok=True)
        (Path(folder) / token).touch()
        return token

    name = lead(write)
    common = all(all_gather_json((Path(folder) / name).exists()))
    if is_leader():
        (Path(folder) / name).unlink(missing_ok=True)
    return common


def asked_to_stop(call: int) -> bool:
    """Tell whether a process got SIGTERM and this is the call, the same in all, after which they save and stop.

    With several processes the signal belongs to JAX's preemption notice (`jax.experimental.multihost_utils`). `call`
    must go up by one each time.
    """
    if _run is None:
        return False
    from jax.experimental import multihost_utils

    return bool(multihost_utils.reached_preemption_sync_point(call))


def report_call(number: int) -> None:
    """Let the others know how many calls of steps have ended here."""
    if _run is not None:
        _run.client.key_value_set(f"{_CALLS}/{_run.launch.index}", str(number), True)


def calls_of_all() -> list[int]:
    """Return how many calls of steps have ended in each process, as far as is known."""
    assert _run is not None, "asked for in a run of several"
    calls = dict.fromkeys(range(_run.launch.processes), 0)
    for key, value in _run.client.key_value_dir_get(f"{_CALLS}/"):
        calls[int(key.rpartition("/")[2])] = int(value)
    return list(calls.values())


def leave_stuck(reason: str) -> NoReturn:
    """Tell the others why this process ends now, to be started again; end it, whatever its main thread does."""
    assert _run is not None, "asked for in a run of several"
    _tell(_run, ExitCode.STOPPED, reason)
    os._exit(ExitCode.STOPPED)


def peer_is_gone(error: BaseException) -> bool:
    """Tell whether an error says that another process is gone."""
    return _run is not None and any(sign in str(error) for sign in _GONE) and not isinstance(error, UserError)


def _leave(run: _Run, error: BaseException, heartbeat_timeout: float, conclude: Callable[[BaseException], int]) -> None:
    """Tell the others and leave, without waiting for them as Python's own way out does."""
    if peer_is_gone(error):
        print("podium: another process of this run is gone; which one follows", file=sys.stderr, flush=True)
        # The coordination service says which, and ends this process, when its heartbeats have been missing.
        time.sleep(heartbeat_timeout + FAREWELL_S)
        os._exit(ExitCode.STOPPED)
    code = conclude(error)
    _tell(run, code, str(error).partition("\n")[0] or type(error).__name__)
    sys.stdout.flush()
    sys.stderr.flush()
    if is_leader():
        # With process 0 goes the service through which the others hear of it.
        time.sleep(FAREWELL_S)
    os._exit(code)


def _tell(run: _Run, code: int, text: str) -> None:
    message = {"process": run.launch.index, "host": socket.gethostname(), "code": int(code), "text": text}
    with contextlib.suppress(Exception):  # the service may be what is gone
        run.client.key_value_set(_ENDED, json.dumps(message))


def _listen(run: _Run) -> None:
    """Wait for another process to end badly, and end this one: it may sit in a collective and hear nothing."""
    while not run.over.wait(LISTEN_S):
        try:
            message = json.loads(run.client.key_value_try_get(_ENDED))
        except Exception as error:
            if "NOT_FOUND" in str(error):
                continue
            return  # the service itself ends this process
        if message["process"] == run.launch.index or run.over.is_set():
            return
        # Whoever raised the same error is about to say it itself.
        time.sleep(2 * LISTEN_S)
        code = message["code"] if message["code"] in (ExitCode.USER, ExitCode.GATES_FAILED) else ExitCode.STOPPED
        print(f"podium: process {message['process']} ({message['host']}) ended: {message['text']}", file=sys.stderr)
        sys.stderr.flush()
        os._exit(code)


def _set(key: str, value: Any) -> None:
    assert _run is not None, "asked for in a run of several"
    _run.client.key_value_set(key, json.dumps(value))


def _get(key: str, limit: float) -> str:
    assert _run is not None, "asked for in a run of several"
    try:
        # About three weeks are all that fits into the service's milliseconds.
        value: str = _run.client.blocking_key_value_get(key, int(1000 * min(limit, 2e6)))
    except Exception as error:
        if "DEADLINE_EXCEEDED" not in str(error):
            raise
        raise TimeoutError(f"another process has said nothing about {key} for {limit:.0f} s") from error
    return value
