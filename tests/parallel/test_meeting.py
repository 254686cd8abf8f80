"""Processes meet before JAX starts: threads stand for them."""

import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from podium.errors import Absent, UserError
from podium.parallel.launch import Launch
from podium.parallel.meeting import meet
from support.gang import free_port

# Slow machines take a while to schedule the threads; a test that waits for nobody is short all the same.
PATIENT, SHORT = 30.0, 3.0


def said(*places: tuple[int, int], timeout: float = PATIENT, port: int | None = None) -> list[str]:
    """Let processes (index, number of processes) meet; returns what each is told, "" where all is well."""
    address = f"localhost:{port or free_port()}"

    def one(place: tuple[int, int]) -> str:
        try:
            meet(Launch(address, place[1], place[0], "flags"), timeout)
        except UserError as error:
            return str(error)
        return ""

    with ThreadPoolExecutor(len(places)) as pool:
        return list(pool.map(one, places))


def test_all_are_there() -> None:
    assert said((0, 4), (1, 4), (2, 4), (3, 4)) == [""] * 4


def test_two_with_one_number_are_told_so_with_everybody_else() -> None:
    told = said((0, 4), (1, 4), (2, 4), (2, 4))
    assert len(set(told)) == 1
    assert "process 2 is there twice" in told[0] and "0 to 3" in told[0]


def test_another_count_is_named() -> None:
    told = said((0, 2), (1, 3))
    assert set(told) == {told[0]}
    assert "process 1" in told[0] and "one of 3, process 0 as one of 2" in told[0]


def test_whoever_is_missing_is_named() -> None:
    told = said((0, 4), (2, 4), timeout=SHORT)
    assert "process 1, 3 of 4 did not come" in told[0]


@pytest.mark.parametrize("index", [0, 1])
def test_where_a_cluster_starts_processes_one_that_is_late_is_started_again(index: int) -> None:
    with pytest.raises(Absent, match="within 1 s"):
        meet(Launch(f"localhost:{free_port()}", 2, index, "environment"), 1)


def test_whoever_came_in_time_hears_that_somebody_is_late() -> None:
    address = f"localhost:{free_port()}"

    def come(index: int) -> None:
        meet(Launch(address, 3, index, "environment"), SHORT)

    with ThreadPoolExecutor(2) as pool:
        for one in [pool.submit(come, index) for index in (0, 1)]:
            with pytest.raises(Absent, match="process 2 of 3"):
                one.result()


def test_a_wrong_number_is_a_mistake_wherever_it_comes_from() -> None:
    with pytest.raises(UserError, match="cannot be opened"), socket.create_server(("", 0)) as other:
        meet(Launch(f"localhost:{other.getsockname()[1]}", 2, 0, "environment"), 1)


def test_process_0_may_come_last() -> None:
    port = free_port()
    with ThreadPoolExecutor(2) as pool:
        early = pool.submit(said, (1, 2), port=port)
        time.sleep(0.5)
        assert said((0, 2), port=port) == [""]
        assert early.result() == [""]


def test_nobody_there() -> None:
    (told,) = said((1, 2), timeout=SHORT)
    assert "nobody answers" in told and "platform.start_timeout" in told


def test_a_name_that_is_none() -> None:
    with pytest.raises(UserError, match=r"nobody answers at x+:1 within .*label"):
        meet(Launch("x" * 64 + ":1", 2, 1, "flags"), SHORT)


def test_a_port_that_is_taken() -> None:
    with socket.create_server(("", 0)) as other:
        (told,) = said((0, 2), timeout=SHORT, port=other.getsockname()[1])
    assert "cannot be opened" in told and "another process 0" in told


@pytest.mark.parametrize("line", [b"", b"GET / HTTP/1.1\r\n\r\n", b"[]\n", b'{"index": "1"}\n', b"[" * 3000 + b"\n"])
def test_others_who_knock_are_not_listened_to(line: bytes) -> None:
    port = free_port()

    def knock() -> None:
        for _ in range(100):
            try:
                with socket.create_connection(("localhost", port)) as caller:
                    caller.sendall(line)
                    return
            except OSError:
                pass

    with ThreadPoolExecutor(2) as pool:
        met = pool.submit(said, (0, 2), port=port)
        pool.submit(knock).result()
        assert said((1, 2), port=port) == [""]
        assert met.result() == [""]
