"""Small parts of the local run: digests, times, the summary."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from podium.config import PodiumConfig
from podium_components import PROGRAM
from podium_pipelines.parameters import content_digest, data_digest_of
from podium_pipelines.run import StageFailed, _Tasks, stage_of
from podium_pipelines.summary import Summary, duration, prompt_text, show


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
    assert digest(f"{tmp_path}/*.jsonl") == digest(f"{tmp_path}/p.jsonl") == digest(f"file://{tmp_path}/p.jsonl")
    # Brackets are part of a name, and a folder is no data file.
    (tmp_path / "data [v2].jsonl").mkdir()
    (tmp_path / "data [v2].jsonl" / "p.jsonl").write_text("{}")
    assert digest(f"{tmp_path}/data [v2].jsonl/*.jsonl") == digest(f"{tmp_path}/p.jsonl")
    assert digest(f"{tmp_path}/data [v2].jsonl") == ""


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
        stage_of(["sh", "-c", "echo"])
    assert stage_of(["python", "-m", "podium", "ppo", "--executor-input", "{}"]) == "ppo"


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
    show(SUMMARY, Console(file=file, force_terminal=terminal, width=40, color_system=None), seconds=200)
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
        "Done in 3 min 20 s",
    ]


def test_the_summary_wraps_answers_but_no_path_on_a_terminal() -> None:
    text = shown(terminal=True)
    assert str(SUMMARY.report) in text
    assert "After   [bold]Sorry[/bold], let me look." in text
    assert json.dumps(SUMMARY.metrics) not in text


def test_a_prompt_may_be_text() -> None:
    assert prompt_text(" Hello ") == "Hello"


def test_a_stage_learns_what_its_run_is_called(tmp_path: Path) -> None:
    """The report's header names it; a name that the orchestrator gives goes before the folder's."""
    seen: list[dict[str, str]] = []

    def start(image: str, command: object, env: dict[str, str], stopping: object) -> int:
        seen.append(env)
        return 0

    tasks = _Tasks(tmp_path / "courteous", Console(file=io.StringIO()), start, 2)  # type: ignore[arg-type]
    command = [*PROGRAM, "evaluate", "--executor-input", "{}"]
    tasks.run("image", command, {"A": "b"})
    tasks.run("image", command, {"RUN": "courteous-20261127-101500"})
    assert [env["RUN"] for env in seen] == ["courteous", "courteous-20261127-101500"] and seen[0]["A"] == "b"
