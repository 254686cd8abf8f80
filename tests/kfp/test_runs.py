"""runs, and the service that the commands remember from the last submit."""

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from podium.errors import UserError
from podium.storage import locks
from podium_pipelines import workdir
from support.services import Service, call

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")

RESULTS = {"gates_passed": True, "summary": {"verdict": "amber"}, "reward": {"gain": {"value": 1.254}}}


def cells(line: str) -> list[str]:
    """Return the cells of a line in columns."""
    return [cell for cell in line.split("  ") if cell]


def test_the_service_of_the_last_submit_is_remembered(kubeflow: Service, tmp_path: Path) -> None:
    kubeflow.submit()
    assert "run       running  " in call("status", "run-0").stdout
    assert call("cancel", "run-0").exit_code == 0
    (note,) = (tmp_path / "state" / "podium").iterdir()
    known = json.loads(note.read_text())
    assert known["last"] == "kubeflow"
    assert known["kubeflow"]["host"] == kubeflow.server.url
    assert set(known) == {"last", "kubeflow"}


def test_each_target_s_service_is_remembered(kubeflow: Service, vertex: Service) -> None:
    vertex.submit()
    (name,) = vertex.fake.jobs
    vertex.submit("--target=kubeflow", f"platform.kubeflow.host={kubeflow.server.url}")
    assert "run       running  " in call("status", name).stdout
    assert "run       running  " in call("status", "run-0").stdout
    assert call("runs").stdout.endswith("run-0\n")


def test_a_state_folder_that_cannot_be_written_stops_no_submit(
    kubeflow: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    result = kubeflow.submit()
    assert result.exit_code == 0
    assert result.stderr.startswith("Note: this service is not remembered (")


def test_a_relative_state_folder_is_passed_over(
    kubeflow: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "state")
    kubeflow.submit()
    assert (tmp_path / ".local" / "state" / "podium" / "services.json").exists()


@pytest.mark.parametrize("text", ["{", '{"last": "kubeflow", "kubeflow": {"hots": 1}}'])
def test_a_damaged_note_is_named(no_traces: None, tmp_path: Path, text: str) -> None:
    note = tmp_path / "state" / "podium" / "services.json"
    note.parent.mkdir(parents=True)
    note.write_text(text)
    error = call("status", "run-0").exception
    assert isinstance(error, UserError)
    assert str(error).startswith(str(note))


def test_runs_of_a_service_with_what_they_found(kubeflow: Service, store: Any) -> None:
    kubeflow.submit()
    kubeflow.submit()
    name = kubeflow.fake.runs["run-0"]["display_name"]
    kubeflow.fake.runs["run-0"] |= {"state": "SUCCEEDED", "finished_at": "2026-01-01T01:00:00Z"}
    kubeflow.fake.runs["run-1"]["display_name"] = "rlhf-later"
    store.pipe({f"/runs/runs/{name}/results.json": json.dumps(RESULTS).encode()})
    kubeflow.fake.states = ("SUCCEEDED",)
    assert call("status", "run-0").stdout.splitlines()[-1] == "verdict   amber  reward +1.25"
    kubeflow.fake.runs["run-1"] |= {"state": "PENDING"}
    head, first, second = call("runs").stdout.splitlines()
    assert head.split() == ["NAME", "STATE", "BEGAN", "TOOK", "VERDICT", "REWARD", "RUN"]
    assert first.split()[:2] + first.split()[-1:] == ["rlhf-later", "pending", "run-1"]
    assert cells(second)[0].strip() == name
    assert [cell.strip() for cell in cells(second)][3:] == ["1 h 0 min", "amber", "+1.25", "run-0"]
    assert len(call("runs", "--limit", "1").stdout.splitlines()) == 2


def test_runs_whose_results_cannot_be_read_are_listed_all_the_same(
    kubeflow: Service, store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    kubeflow.submit()
    kubeflow.fake.runs["run-0"]["state"] = "SUCCEEDED"
    monkeypatch.setattr(store, "cat_file", lambda path: (_ for _ in ()).throw(PermissionError("no key")))
    result = call("runs")
    assert result.exit_code == 0
    assert result.stdout.splitlines()[1].endswith("run-0")
    assert "no key" in result.stderr


def test_a_config_of_this_machine_has_no_service(kubeflow: Service) -> None:
    kubeflow.config.write_text(kubeflow.config.read_text().replace("target: kubeflow", "target: local"))
    text = f"{kubeflow.config}: platform.target is local; podium runs --local lists the runs of this machine"
    assert str(kubeflow.call("runs").exception) == text


def test_a_service_without_runs(kubeflow: Service) -> None:
    assert len(kubeflow.call("runs", "--limit", "3").stdout.splitlines()) == 1


def test_runs_of_vertex(vertex: Service) -> None:
    vertex.submit()
    (name,) = vertex.fake.jobs
    assert call("runs").stdout.splitlines()[1].endswith(name)


def folder(path: Path, *, gates: bool, results: dict[str, Any] | None) -> None:
    """Make a run folder as far as it is told."""
    path.mkdir(parents=True)
    (path / workdir.LOCK).touch()
    (path / workdir.CONFIG).touch()
    if results is not None:
        samples = path / "evaluate" / "samples"
        samples.mkdir(parents=True)
        (samples / "results.json").write_text(json.dumps(results))
        reported = {"artifacts": {"samples": {"artifacts": [{"uri": str(samples)}]}}}
        (path / "evaluate" / "executor_output.json").write_text(json.dumps(reported))
    if gates:
        (path / "gates").mkdir()
        (path / "gates" / "executor_output.json").touch()


def test_runs_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = tmp_path / "runs"
    folder(runs / "whole", gates=True, results=RESULTS)
    folder(runs / "missed", gates=False, results={**RESULTS, "gates_passed": False})
    folder(runs / "begun", gates=False, results=None)
    folder(runs / "now", gates=False, results=None)
    (runs / "other").mkdir()
    for age, name in enumerate(("now", "begun", "missed", "whole")):
        os.utime(runs / name / workdir.CONFIG, (1e9 - age, 1e9 - age))
    monkeypatch.chdir(tmp_path)
    with locks.locked(runs / "now" / workdir.LOCK, ValueError):
        lines = call("runs", "--local").stdout.splitlines()
    assert call("runs", "--local", str(runs)).stdout.splitlines()[1].endswith(str(runs / "now"))
    assert [cells(line)[1].strip() for line in lines[1:]] == ["running", "stopped", "gates failed", "succeeded"]
    assert lines[4].split()[-3:] == ["amber", "+1.25", "runs/whole"]
    # A look leaves no trace.
    assert stat.S_ISREG((runs / "now" / workdir.LOCK).stat().st_mode)
    assert (runs / "whole" / workdir.LOCK).read_text() == ""


def test_a_folder_goes_with_local(no_traces: None, tmp_path: Path) -> None:
    assert str(call("runs", str(tmp_path)).exception).endswith(f"write podium runs --local {tmp_path}")
    assert "there is no such folder" in str(call("runs", "--local", str(tmp_path / "none")).exception)
