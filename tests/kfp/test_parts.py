"""Small parts of the local run: times, signals, the summary."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from podium_components import PROGRAM
from podium_pipelines.run import StageFailed, _Tasks, stage_of
from podium_pipelines.summary import Summary, duration, show


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
    assert StageFailed("ppo", status, "step 3 of ppo").signal_name == name


def test_a_command_of_someone_else_is_not_run() -> None:
    with pytest.raises(RuntimeError, match="not a stage of Podium"):
        stage_of(["sh", "-c", "echo"])
    assert stage_of(["python", "-m", "podium", "ppo", "--executor-input", "{}"]) == "ppo"


SUMMARY = Summary(
    report=Path("/a/very/long/path/that/a/terminal/of/forty/columns/would/break/report.html"),
    model=Path("/model"),
    results={
        "gates_passed": False,
        "summary": {
            "verdict": "red",
            "headline": "Better on 9 prompts: [i]reward[/i] +0.33.",
            "reasons": [
                {"level": "red", "text": "Gate max_kl failed."},
                {"level": "amber", "text": "Only 9 prompts."},
                {"level": "green", "text": "Mean reward rose."},
            ],
            "examples": [
                {
                    "prompt": "Where is [my] parcel?",
                    "baseline": "No\nidea.",
                    "tuned": "[bold]Sorry[/bold], let me look.",
                    "reward_baseline": -1.0,
                    "reward_tuned": 2.0,
                }
            ],
        },
    },
)


def shown(*, terminal: bool, failed: bool = False) -> str:
    """Return what `show` prints."""
    file = io.StringIO()
    show(SUMMARY, Console(file=file, force_terminal=terminal, width=40, color_system=None), seconds=200, failed=failed)
    return file.getvalue()


def test_the_summary_is_plain_lines_without_a_terminal() -> None:
    assert shown(terminal=False).splitlines() == [
        "",
        "Prompt  Where is [my] parcel?",
        "Before  No idea. (reward -1.00)",
        "After   [bold]Sorry[/bold], let me look. (reward 2.00)",
        "",
        "red     Better on 9 prompts: [i]reward[/i] +0.33.",
        "red     Gate max_kl failed.",
        "amber   Only 9 prompts.",
        "",
        f"Report  {SUMMARY.report}",
        "Model   /model",
        "Gates   failed, which fails no run under evaluation.gates.on_failure: warn",
        "Done in 3 min 20 s",
    ]


def test_the_summary_wraps_answers_but_no_path_on_a_terminal() -> None:
    text = shown(terminal=True)
    assert str(SUMMARY.report) in text
    assert "After   [bold]Sorry[/bold], let me look." in text
    assert "red     Gate max_kl failed." in text


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


def test_gates_that_fail_the_run_are_said_with_what_allows_them() -> None:
    assert "exit code 3); --allow-failed-gates lets it end with 0" in shown(terminal=False, failed=True)
