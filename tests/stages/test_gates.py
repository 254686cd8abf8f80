"""The stage that fails a run by its gates, and what a run on a cluster leaves of its verdict."""

import json
from pathlib import Path

import fsspec
import pytest

from podium.cli import main
from podium.config import PodiumConfig, load_config_data
from podium.errors import GatesFailed, UserError
from podium.stages.io import StageIO
from podium.stages.runner import run_stage
from support.gates import FAILED, HEADLINE, samples


def config(on_failure: str = "fail") -> PodiumConfig:
    values = {"model": {"name_or_path": "some/model"}, "evaluation": {"gates": {"on_failure": on_failure}}}
    return load_config_data(values, source="test")


def test_a_failed_gate_fails_the_run_each_time_it_is_asked(tmp_path: Path) -> None:
    io = StageIO.local(tmp_path, samples=samples(tmp_path / "in", min_win_rate=0.5, max_kl=9.0))
    for _ in range(2):
        with pytest.raises(GatesFailed) as failure:
            run_stage("gates", config(), io)
        assert str(failure.value) == FAILED, "passed gates are not named"
    assert not (tmp_path / "metrics" / "manifest.json").exists()


def test_gates_that_passed_are_judged_once(tmp_path: Path) -> None:
    io = StageIO.local(tmp_path, samples=samples(tmp_path / "in", min_win_rate=0.2, max_kl=9.0))
    result, skipped = run_stage("gates", config(), io)
    assert (result.metrics, skipped) == ({"gates_passed": 1.0, "gate/min_win_rate": 1.0, "gate/max_kl": 1.0}, False)
    assert run_stage("gates", config(), io)[1]


def test_a_run_without_gates_passes(tmp_path: Path) -> None:
    result, _ = run_stage("gates", config(), StageIO.local(tmp_path, samples=samples(tmp_path / "in")))
    assert result.metrics == {"gates_passed": 1.0}


def test_warn_says_what_failed_and_completes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    io = StageIO.local(tmp_path, samples=samples(tmp_path / "in", min_win_rate=0.5))
    result, _ = run_stage("gates", config("warn"), io)
    assert result.metrics == {"gates_passed": 0.0, "gate/min_win_rate": 0.0}
    assert capsys.readouterr().err == f"podium gates: failed, and evaluation.gates.on_failure is warn:\n{FAILED}\n"


def test_the_command_ends_with_3(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = samples(tmp_path / "in", min_win_rate=0.5)
    monkeypatch.setattr("podium.parallel.runtime.configure", lambda: None)
    words = ["podium", "gates", "--config", '{"model": {"name_or_path": "some/model"}}', "--input", f"samples={folder}"]
    monkeypatch.setattr("sys.argv", words)
    with pytest.raises(SystemExit) as end:
        main()
    assert (end.value.code, capsys.readouterr().err) == (3, f"podium: gates failed: {FAILED}\n")


def test_samples_without_a_result_are_refused(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "results.json").write_text('{"gates": []}')
    with pytest.raises(UserError, match="name the samples that `podium evaluate` wrote"):
        run_stage("gates", config(), StageIO.local(tmp_path, samples=tmp_path / "in"))


@pytest.mark.parametrize("kind", ["here", "elsewhere"])
def test_verdict_and_report_are_left_with_the_run(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = str(tmp_path / "storage") if kind == "here" else "memory://gates-storage/of-many-runs"
    monkeypatch.setenv("STORAGE", f"{storage}/")
    monkeypatch.setenv("RUN", "courteous-20260101-000000")
    (tmp_path / "page").write_text("<html>")
    io = StageIO.local(tmp_path, samples=samples(tmp_path / "in", min_win_rate=0.5), report=tmp_path / "page")
    with pytest.raises(GatesFailed):
        run_stage("gates", config(), io)
    system, root = fsspec.core.url_to_fs(f"{storage}/runs/courteous-20260101-000000")
    left = {path.rpartition("/")[2]: system.cat_file(path) for path in system.find(root)}
    assert json.loads(left.pop("results.json"))["gates_passed"] is False
    assert left == {"report.html": b"<html>", "summary.md": f"**{HEADLINE}**\n".encode()}


def test_a_storage_that_cannot_be_written_is_said_and_fails_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "storage").write_text("a file")
    monkeypatch.setenv("STORAGE", str(tmp_path / "storage"))
    monkeypatch.setenv("RUN", "r")
    run_stage("gates", config(), StageIO.local(tmp_path, samples=samples(tmp_path / "in")))
    assert f"podium gates: note: {tmp_path}/storage/runs/r/results.json was not written: " in capsys.readouterr().err
