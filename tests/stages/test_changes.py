"""What a changed config, data file or model makes outdated, with its reasons: as the stages will decide it."""

import json
from pathlib import Path
from typing import Any

import pytest

from podium.config import STAGE_TABLE, PodiumConfig, edges_of, load_config_data
from podium.stages.changes import answer
from podium.stages.io import Result, StageIO
from podium.stages.runner import run_stage

STAGES = ("prepare", "reward", "sample", "ppo")


class Killed(BaseException):
    """Ends a stage as SIGKILL would."""


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, Any]:
    """Return a config whose model and data are files here."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    (tmp_path / "a.jsonl").write_text("1")
    return {"model": {"name_or_path": str(tmp_path / "model")}, "data": {"preferences": str(tmp_path / "a.jsonl")}}


def run(folder: Path, config: PodiumConfig, *, killed_in: str | None = None) -> list[str]:
    """Run the stages as a pipeline does; return those that were not skipped."""
    made = []

    def work(config: PodiumConfig, io: StageIO) -> Result:
        made.append(stage)
        for name in STAGE_TABLE[stage].outputs:
            if name != "metrics":
                Path(io.work(name), "checkpoints").mkdir(parents=True, exist_ok=True)
                (io.output(name) / "content").write_text(f"{stage} {len(made)}")
        if stage == killed_in:
            raise Killed
        return Result({})

    for stage in STAGES:
        places = {name: folder / place for name, place in edges_of(config)[stage].items()}
        try:
            run_stage(
                stage, config, StageIO.local(folder / stage, **places), run=work, earlier="orchestrated", say=print
            )
        except Killed:
            break
    return made


def ask(folder: Path, before: PodiumConfig, after: PodiumConfig) -> dict[str, list[str]]:
    request = {"config": after.model_dump(mode="json"), "before": before.model_dump(mode="json")}
    request_file, reply = folder / "request", folder / "reply"
    request_file.write_text(json.dumps(request | {"folder": str(folder)}))
    answer(request_file, reply)
    found: dict[str, list[str]] = json.loads(reply.read_text())
    return found


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, {}),
        ({"ppo": {"save_steps": 3, "save_minutes": 1.5}}, {}),
        ({"ppo": {"max_steps": 6}}, {"ppo": ["ppo.max_steps 100 -> 6"]}),
        ({"ppo": {"lora": {"r": 4}}}, {"ppo": ["ppo.lora null -> {"]}),
        ({"reward": {"max_steps": 6}}, {"reward": ["reward.max_steps null -> 6"], "ppo": []}),
    ],
)
def test_what_is_outdated_is_what_the_stages_make_again(
    tmp_path: Path, settings: dict[str, Any], change: Any, expected: dict[str, list[str]]
) -> None:
    before, after = (load_config_data(settings | part, source="test") for part in ({}, change))
    run(tmp_path, before)
    found = ask(tmp_path, before, after)
    assert list(found) == list(expected)
    for stage, reasons in expected.items():
        assert len(found[stage]) >= len(reasons)
        assert all(one.startswith(begin) for one, begin in zip(found[stage], reasons, strict=False))
    assert run(tmp_path, after) == list(expected)


def test_a_file_that_changed_behind_its_name_is_named(tmp_path: Path, settings: dict[str, Any]) -> None:
    config = load_config_data(settings, source="test")
    run(tmp_path, config)
    (tmp_path / "a.jsonl").write_text("2")
    data = f"data.preferences ({tmp_path}/a.jsonl) changed on disk"
    assert ask(tmp_path, config, config) == {"prepare": [data], "reward": [], "sample": [], "ppo": []}
    (tmp_path / "a.jsonl").write_text("1")
    (tmp_path / "model" / "config.json").write_text("{ }")
    found = ask(tmp_path, config, config)
    assert found["prepare"] == ["model.name_or_path changed on disk"]
    assert list(found) == list(STAGES)


def test_work_in_progress_is_outdated_with_its_config(tmp_path: Path, settings: dict[str, Any]) -> None:
    before, after = (load_config_data(settings | {"ppo": {"max_steps": n}}, source="test") for n in (40, 6))
    assert run(tmp_path, before, killed_in="ppo")[-1] == "ppo"
    assert ask(tmp_path, before, before) == {}
    assert ask(tmp_path, before, after) == {"ppo": ["ppo.max_steps 40 -> 6"]}


def test_a_result_that_is_lost_will_be_what_it_was(tmp_path: Path, settings: dict[str, Any]) -> None:
    """The stages behind it are not outdated."""
    config = load_config_data(settings, source="test")
    run(tmp_path, config)
    (tmp_path / "reward" / "reward_model" / "manifest.json").unlink()
    assert ask(tmp_path, config, config) == {}


def test_sft_that_comes_changes_what_the_others_start_from(tmp_path: Path, settings: dict[str, Any]) -> None:
    settings["data"]["demonstrations"] = settings["data"]["preferences"]
    before, after = (load_config_data(settings | part, source="test") for part in ({}, {"sft": {}}))
    run(tmp_path, before)
    assert ask(tmp_path, before, before) == {}
    assert ask(tmp_path, before, after) == {stage: ["sft added"] for stage in ("reward", "sample", "ppo")}
