"""Small parts of the local run: task keys, digests, times, the summary."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from podium.config import PodiumConfig
from podium_pipelines import workdir
from podium_pipelines.parameters import content_digest, data_digest_of
from podium_pipelines.run import StageFailed, duration, read_command
from podium_pipelines.summary import Summary, prompt_text, show


def executor_input(uri: Path, **parameters: Any) -> dict[str, Any]:
    """Return what KFP hands a task with one input artifact."""
    return {"inputs": {"parameterValues": parameters, "artifacts": {"prompts": {"artifacts": [{"uri": str(uri)}]}}}}


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    """Return an artifact folder with a manifest."""
    folder = tmp_path / "prompts"
    folder.mkdir()
    (folder / "manifest.json").write_text('{"files": 1}')
    return folder


def test_a_task_key_follows_config_and_content_but_not_place(tmp_path: Path, artifact: Path) -> None:
    key = workdir.task_key(executor_input(artifact, config={"seed": 1.0}))
    assert key != workdir.task_key(executor_input(artifact, config={"seed": 2.0}))
    elsewhere = artifact.rename(tmp_path / "moved")
    assert key == workdir.task_key(executor_input(elsewhere, config={"seed": 1.0}))
    (elsewhere / "manifest.json").write_text('{"files": 2}')
    assert key != workdir.task_key(executor_input(elsewhere, config={"seed": 1.0}))


def test_settle_keeps_what_is_valid_and_clears_the_rest(tmp_path: Path, artifact: Path) -> None:
    folder = tmp_path / "out" / "sample"
    assert workdir.settle(folder, executor_input(artifact, config={"seed": 1.0})) is False
    (folder / "checkpoint").touch()
    assert workdir.settle(folder, executor_input(artifact, config={"seed": 1.0})) is False
    assert (folder / "checkpoint").exists()
    assert workdir.settle(folder, executor_input(artifact, config={"seed": 2.0})) is True
    assert [path.name for path in folder.iterdir()] == ["task.json"]


def test_a_folder_that_was_half_cleared_is_cleared_again(tmp_path: Path, artifact: Path) -> None:
    folder = tmp_path / "sample"
    folder.mkdir()
    (folder / "checkpoint").touch()
    assert workdir.settle(folder, executor_input(artifact)) is False
    assert not (folder / "checkpoint").exists()


def test_a_digest_follows_names_and_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x").write_text("1")
    before = content_digest(tmp_path / "a")
    (tmp_path / "a" / "x").rename(tmp_path / "a" / "y")
    assert content_digest(tmp_path / "a") != before
    (tmp_path / "a" / "y").rename(tmp_path / "a" / "x")
    assert content_digest(tmp_path / "a") == before
    (tmp_path / "a" / "x").write_text("2")
    assert content_digest(tmp_path / "a") != before


def test_data_elsewhere_has_no_digest(tmp_path: Path) -> None:
    def digest(path: str) -> str:
        return data_digest_of(PodiumConfig.model_validate({"model": {"name_or_path": "m"}, "data": {"prompts": path}}))

    (tmp_path / "p.jsonl").write_text("{}")
    assert digest("gs://bucket/p.jsonl") == ""
    assert len(digest(f"{tmp_path}/p.jsonl")) == 64


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (59.94, "59.9 s"),
        (60, "1 min 0 s"),
        (200.4, "3 min 20 s"),
        (3599.7, "1 h 0 min"),
        (7500, "2 h 5 min"),
    ],
)
def test_a_duration_reads_as_it_is_said(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(("status", "name"), [(-9, "SIGKILL"), (137, "SIGKILL"), (2, None), (1, None), (255, None)])
def test_a_signal_is_named_from_a_process_and_from_a_container(status: int, name: str | None) -> None:
    assert StageFailed("ppo", status).signal_name == name


def test_a_command_of_someone_else_is_not_run() -> None:
    with pytest.raises(RuntimeError, match="not a stage of Podium"):
        read_command(["sh", "-c", "echo"])
    assert read_command(["python", "-m", "podium", "ppo", "--executor-input", "{}"]) == ("ppo", {})


SUMMARY = Summary(
    report=Path("/a/very/long/path/that/a/terminal/of/forty/columns/would/break/report.html"),
    model=Path("/model"),
    metrics={"win_rate": 0.712345, "kl": 3.0},
    samples=[
        {
            "prompt": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Where is [my] parcel?"}],
            "baseline": "No\nidea.",
            "tuned": "[bold]Sorry[/bold], let me look.",
            "reward_baseline": -1.0,
            "reward_tuned": 2.0,
        }
    ],
)


def shown(*, terminal: bool) -> str:
    """Return what `show` prints."""
    file = io.StringIO()
    show(SUMMARY, Console(file=file, force_terminal=terminal, width=40, color_system=None))
    return file.getvalue()


def test_the_summary_is_plain_lines_without_a_terminal() -> None:
    assert shown(terminal=False).splitlines() == [
        "",
        "win_rate  0.7123",
        "kl        3",
        "",
        "Prompt  Where is [my] parcel?",
        "Before  No idea. (reward -1.00)",
        "After   [bold]Sorry[/bold], let me look. (reward 2.00)",
        "",
        f"Report  {SUMMARY.report}",
        "Model   /model",
    ]


def test_the_summary_wraps_answers_but_no_path_on_a_terminal() -> None:
    text = shown(terminal=True)
    assert str(SUMMARY.report) in text
    assert "After   [bold]Sorry[/bold], let me look." in text
    assert json.dumps(SUMMARY.metrics) not in text


def test_a_prompt_may_be_text() -> None:
    assert prompt_text(" Hello ") == "Hello"
