"""A stage of a few lines, for tests of what surrounds every stage."""

from pathlib import Path
from typing import Any

from podium.config import STAGE_TABLE, PodiumConfig, load_config_data
from podium.stages.io import Result, StageIO
from podium.stages.runner import run_stage


class Killed(BaseException):
    """Ends a stage as SIGKILL would: nothing of ours runs after it."""


def config(**sections: Any) -> PodiumConfig:
    return load_config_data({"model": {"name_or_path": "some/model"}} | sections, source="test")


class Stage:
    """A stage that counts its runs, writes its folders, and can be told to fail half-way."""

    def __init__(self, stage: str, failure: BaseException | None = None) -> None:
        self.stage = stage
        self.failure = failure
        self.runs = 0
        self.found_work: list[bool] = []

    def __call__(self, config: PodiumConfig, io: StageIO) -> Result:
        self.runs += 1
        self.found_work = []
        for name in STAGE_TABLE[self.stage].outputs:
            if name == "metrics":
                continue
            path = io.output(name)
            if name in STAGE_TABLE[self.stage].files:
                path.write_text("<html></html>")
                continue
            (path / "deep").mkdir(parents=True, exist_ok=True)
            work = Path(io.work(name)) / "step-1"
            self.found_work.append(work.exists())
            work.mkdir(parents=True, exist_ok=True)
            (path / "deep" / "rows.jsonl").write_text(f"{config.seed}\n")
            if self.failure is not None:
                raise self.failure
        return Result({"accuracy": 0.75}, {STAGE_TABLE[self.stage].outputs[0]: {"framework": "jax"}})

    def run(self, io: StageIO, settings: PodiumConfig | None = None) -> tuple[Result, bool]:
        return run_stage(self.stage, settings or config(), io, run=self, say=lambda text: None)


def evaluate_inputs(folder: Path) -> dict[str, str]:
    """Write an input of one file for each that the stage evaluate takes, and return their places."""
    for name in STAGE_TABLE["evaluate"].inputs:
        (folder / name).mkdir(parents=True)
        (folder / name / "file").write_text(name)
    return {name: str(folder / name) for name in STAGE_TABLE["evaluate"].inputs}
