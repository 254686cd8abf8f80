"""Checkpoints of a run on a cluster: in its store, where the next pod of a stage finds them, and none but its own."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from podium.config import PodiumConfig
from podium.stages.io import Result, StageIO
from podium.stages.runner import run_stage
from podium.storage import remote
from support.s3_server import S3Server
from support.small_stage import Killed, config

SFT: dict[str, Any] = {"sft": {}}


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    """A store, and the variables of a run that keeps its work there."""
    with S3Server() as server:
        server.use(monkeypatch)
        monkeypatch.setenv("STORAGE", "s3://runs/")
        monkeypatch.setenv("RUN", "rlhf-1")
        yield server


class Training:
    """A stage that leaves a checkpoint in its work, and ends as it is told."""

    def __init__(self, failure: BaseException | None = None) -> None:
        self.failure = failure
        self.found: list[bool] = []
        self.place = ""

    def __call__(self, config: PodiumConfig, io: StageIO) -> Result:
        self.place = f"{io.work('model')}/checkpoints/1"
        if self.place.startswith("s3://"):
            self.found.append(remote.read_bytes(self.place) is not None)
            remote.write_bytes(self.place, b"state")
        io.output("model").mkdir(exist_ok=True)
        (io.output("model") / "weights").write_text("1")
        if self.failure is not None:
            raise self.failure
        return Result()


def pod(folder: Path, stage: Training, earlier: Any = "orchestrated", **changes: Any) -> None:
    """Run the stage with an empty disk, as each pod of a task has one."""
    folder.mkdir()
    (folder / "demonstrations").mkdir()
    (folder / "demonstrations" / "train.jsonl").write_text("{}\n")
    io = StageIO({"demonstrations": str(folder / "demonstrations")}, {"model": str(folder / "model")})
    run_stage("sft", config(**(SFT | changes)), io, run=stage, earlier=earlier, say=lambda text: None)


@pytest.fixture(autouse=True)
def inputs_are_sound(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few bytes stand for the outputs of prepare and for a model."""
    monkeypatch.setattr(StageIO, "input_digests", lambda self: {"demonstrations": "digest"})
    monkeypatch.setattr("podium.stages.runner.outside", lambda *_: {"model": "digest"})


def checkpoints(store: S3Server) -> list[str]:
    return [name for name in store.objects if name.startswith("runs/checkpoints/")]


def test_the_next_pod_finds_what_a_killed_one_left_and_removes_it_at_the_end(store: S3Server, tmp_path: Path) -> None:
    killed, again = Training(Killed()), Training()
    with pytest.raises(Killed):
        pod(tmp_path / "first", killed)
    assert killed.place.startswith("s3://runs/checkpoints/rlhf-1/sft/")
    assert len(checkpoints(store)) == 1
    pod(tmp_path / "second", again)
    assert (killed.found, again.found) == ([False], [True])
    assert checkpoints(store) == []


def test_another_task_of_the_run_does_not_go_on_from_it(store: S3Server, tmp_path: Path) -> None:
    other = Training()
    with pytest.raises(Killed):
        pod(tmp_path / "first", Training(Killed()))
    pod(tmp_path / "second", other, seed=7)
    assert other.found == [False]
    assert len(checkpoints(store)) == 1


def test_where_nothing_is_to_be_resumed_it_is_removed(store: S3Server, tmp_path: Path) -> None:
    never, again = {"sft": {"resume": "never"}}, Training()
    with pytest.raises(Killed):
        pod(tmp_path / "first", Training(Killed()), **never)
    pod(tmp_path / "second", again, **never)
    assert again.found == [False]


@pytest.mark.parametrize(
    ("variable", "value", "earlier"),
    [
        ("STORAGE", "", "orchestrated"),
        ("RUN", "", "orchestrated"),
        ("STORAGE", "minio://b", "orchestrated"),
        ("RUN", "x", "keep"),
    ],
)
def test_elsewhere_it_stays_in_the_output(
    store: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, earlier: str
) -> None:
    monkeypatch.setenv(variable, value)
    stage = Training()
    pod(tmp_path / "only", stage, earlier)
    assert stage.place.startswith(str(tmp_path))
