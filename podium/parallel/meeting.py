"""Let the processes of a run meet before JAX starts: who is missing, or has another's number, is then said in a line.

JAX's own service ends every process with a stack trace of C++ in either case, and does not say who is missing.
Here a line of JSON goes each way over the coordinator's port, which that service takes over afterwards.
"""

import contextlib
import json
import socket
import time
from collections.abc import Iterator
from typing import Any

from podium.errors import Absent, UserError
from podium.parallel.launch import Launch

_LONGEST = 4096  # bytes of a line: whoever else knocks at the port is not listened to
_POLITE_S = 5.0  # how long a caller may take to say its line


def meet(launch: Launch, timeout: float) -> None:
    """Return when all processes are there.

    Raises:
        UserError: Two have one number, or one counts other processes, or flags name a place where not all come to.
        Absent: They do not come within `timeout` seconds. What set the environment of all, a job of a cluster or a pod
            of TPUs, starts them again; their hosts may have been slow.
    """
    deadline = time.monotonic() + timeout
    reason, late = _receive(launch, deadline, timeout) if launch.index == 0 else _report(launch, deadline, timeout)
    if reason:
        raise (Absent if late and launch.source != "flags" else UserError)(reason)


def _receive(launch: Launch, deadline: float, timeout: float) -> tuple[str, bool]:
    """Wait in process 0 for the others, and tell them all what came of it, and whether somebody is late."""
    callers: dict[int, tuple[socket.socket, str]] = {}
    reason, late = "", False
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(_listen(launch))
        while len([index for index in callers if index > 0]) < launch.processes - 1:
            server.settimeout(max(0.01, deadline - time.monotonic()))
            try:
                caller = stack.enter_context(server.accept()[0])
            except TimeoutError:
                late = not reason
                reason = reason or _missing(launch, callers, timeout)
                break
            hello = _read(caller, _POLITE_S)
            if _is_hello(hello) and (fault := _join(launch, callers, caller, hello)) and not reason:
                # Whoever is about to come is told, too.
                reason, deadline = fault, min(deadline, time.monotonic() + _POLITE_S)
        for caller, _ in callers.values():
            with contextlib.suppress(OSError):
                caller.sendall(json.dumps({"reason": reason, "late": late}).encode() + b"\n")
    return reason, late


def _missing(launch: Launch, callers: dict[int, Any], timeout: float) -> str:
    missing = [str(index) for index in range(1, launch.processes) if index not in callers]
    return (
        f"process {', '.join(missing)} of {launch.processes} did not come to {launch.coordinator} within "
        f"{timeout:g} s; start all with the same coordinator, or raise platform.start_timeout"
    )


def _is_hello(message: Any) -> bool:
    """Tell a process of Podium's from whatever else calls."""
    kinds = {"index": int, "processes": int, "host": str}
    return isinstance(message, dict) and all(isinstance(message.get(name), kind) for name, kind in kinds.items())


def _join(launch: Launch, callers: dict[int, tuple[socket.socket, str]], caller: socket.socket, hello: Any) -> str:
    """Note a caller; returns why the run cannot start with it."""
    index, host = hello["index"], hello["host"]
    seen = callers.get(index)
    # Under any key, so that it hears the reason, too.
    callers[index if seen is None else -len(callers) - 1] = caller, host
    if hello["processes"] != launch.processes:
        return (
            f"process {index} ({host}) was started as one of {hello['processes']}, process 0 as one of "
            f"{launch.processes}; give all the same number"
        )
    if seen is not None:
        last = launch.processes - 1
        return f"process {index} is there twice ({seen[1]}, {host}); give each a number of its own, 0 to {last}"
    return ""


def _report(launch: Launch, deadline: float, timeout: float) -> tuple[str, bool]:
    """Call process 0 until it answers; returns what it says, and whether somebody is late."""
    reason = ""
    hello = {"index": launch.index, "processes": launch.processes, "host": socket.gethostname()}
    host, _, port = launch.coordinator.rpartition(":")
    while (left := deadline - time.monotonic()) > 0:
        try:
            with socket.create_connection((host.strip("[]"), int(port)), timeout=min(5.0, left)) as caller:
                caller.sendall(json.dumps(hello).encode() + b"\n")
                # Process 0 waits for others as long; it speaks last.
                answer = _read(caller, left + _POLITE_S)
                if answer is not None:
                    return str(answer["reason"]), bool(answer["late"])
                reason = "it hung up"
        except (OSError, UnicodeError) as error:  # a name may be none that DNS knows
            reason = getattr(error, "strerror", None) or str(error)
        time.sleep(min(0.2, left))
    reason = (
        f"process {launch.index}: nobody answers at {launch.coordinator} within {timeout:g} s ({reason}); "
        "start process 0 there, check that this host reaches that port, or raise platform.start_timeout"
    )
    return reason, True


@contextlib.contextmanager
def _listen(launch: Launch) -> Iterator[socket.socket]:
    port = int(launch.coordinator.rpartition(":")[2])
    both = socket.has_dualstack_ipv6()
    try:
        server = socket.create_server(
            ("", port), family=socket.AF_INET6 if both else socket.AF_INET, backlog=1024, dualstack_ipv6=both
        )
    except OSError as error:
        raise UserError(
            f"process 0: port {port} of the coordinator cannot be opened ({error.strerror}): another process 0 runs "
            "here, or another program; give each process a number of its own, or name another port"
        ) from error
    with server:
        yield server


def _read(caller: socket.socket, timeout: float) -> Any:
    """Read a line of JSON; None where there is none."""
    try:
        caller.settimeout(timeout)
        with caller.makefile("rb") as lines:
            return json.loads(lines.readline(_LONGEST))
    except (OSError, ValueError, RecursionError):
        return None
