"""One holder at a time, and the refusal names it. Seen to fail without flock's LOCK_EX."""

import errno
import fcntl
import os
from pathlib import Path

import pytest

from podium.errors import UserError
from podium.storage.locks import locked


def busy(owner: str) -> UserError:
    return UserError(f"process {owner} is using it")


def test_a_second_holder_is_told_of_the_first(tmp_path: Path) -> None:
    with (
        locked(tmp_path / "lock", busy),
        pytest.raises(UserError, match=f"process {os.getpid()} is using it"),
        locked(tmp_path / "lock", busy, patience_s=0),
    ):
        pass


def test_the_lock_ends_with_its_holder(tmp_path: Path) -> None:
    for _ in range(2):
        with locked(tmp_path / "lock", busy, patience_s=0) as descriptor:
            assert os.fstat(descriptor).st_size == len(str(os.getpid()))


def test_a_lock_that_is_not_kept_leaves_no_file_and_lets_nobody_in_twice(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with locked(lock, busy, keep=False), pytest.raises(UserError), locked(lock, busy, patience_s=0, keep=False):
        pass
    assert list(tmp_path.iterdir()) == []


def test_whoever_waited_for_a_file_that_went_locks_the_new_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock, calls = tmp_path / "lock", []
    flock = fcntl.flock

    def slow(descriptor: int, operation: int) -> None:
        if not calls:
            lock.unlink()  # as its holder does, between our opening it and our having it
        calls.append(descriptor)
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", slow)
    with locked(lock, busy, keep=False) as descriptor:
        assert len(calls) == 2
        assert os.path.samestat(os.fstat(descriptor), lock.stat())


def test_a_file_system_without_locks_lets_everybody_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", none)
    with locked(tmp_path / "lock", busy), locked(tmp_path / "lock", busy, patience_s=0) as descriptor:
        assert descriptor
