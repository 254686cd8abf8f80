"""One holder at a time, and the refusal names it. Seen to fail without flock's LOCK_EX."""

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
