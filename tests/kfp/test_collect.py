"""collect: what a run left in its bucket, here, whole, and only in a folder of its own."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from podium.errors import UserError
from support.fake_kubernetes import FakeKubernetes
from support.services import Service, call, run_in

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")

SUMMARY = "# Kinder\n\nThe reward rose by 1.25.\n"
RESULTS = json.dumps({"summary": {"verdict": "green", "headline": "Kinder"}, "gates_passed": True})
LEFT = {"results.json": RESULTS, "summary.md": SUMMARY, "report.html": "<p>report"}
WEIGHTS = b"weights" * 1000


def manifest(files: dict[str, bytes]) -> bytes:
    """Return the manifest of a model's files."""
    entries = {name: {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in files.items()}
    return json.dumps({"files": entries}).encode()


def model(card: str = f"# Model\n\nGates: passed\n\n{SUMMARY.strip()}\n\nMore.") -> dict[str, bytes]:
    """Return the files of an exported model."""
    files = {"README.md": card.encode(), "model.safetensors": WEIGHTS, "tokenizer/vocab.json": b"{}"}
    return {**files, "manifest.json": manifest(files)}


def leave(store: Any, folder: str, files: dict[str, Any]) -> None:
    """Put files into the store."""
    store.pipe({f"{folder}/{name}": data if isinstance(data, bytes) else data.encode() for name, data in files.items()})


@pytest.fixture
def ended(kubeflow: Service, cluster: FakeKubernetes, store: Any, tmp_path: Path, monkeypatch: Any) -> Service:
    """Return a service with a run that left everything, and go to an empty folder."""
    run_in(kubeflow, "SUCCEEDED")
    kubeflow.fake.runs["run-0"]["display_name"] = "rlhf-1"
    leave(store, "/runs/runs/rlhf-1", LEFT)
    leave(store, "/runs/rlhf/run-0/export/id/model", model())
    leave(store, "/runs/rlhf/run-0/reward/id/metrics", {"metrics.json": '{"accuracy": 0.7}'})
    leave(store, "/runs/rlhf/run-0/export/id", {"executor-logs": "lines"})
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return kubeflow


def files_in(folder: Path) -> dict[str, bytes]:
    """Return the files below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_everything_comes_to_a_folder_of_the_run_s_name(ended: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    result = ended.on("collect", "run-0", "--open")
    assert result.stdout.splitlines() == [
        "green   Kinder",
        "Report  runs/rlhf-1/report.html",
        "Model   runs/rlhf-1/model",
        "Card    runs/rlhf-1/model/README.md",
        "Metrics runs/rlhf-1/metrics",
    ]
    found = files_in(Path("runs/rlhf-1"))
    assert found.pop(".podium-collect.json") == b'{"run": "run-0"}\n'
    assert found == {
        **{name: text.encode() for name, text in LEFT.items()},
        **{f"model/{name}": data for name, data in model().items()},
        "metrics/reward/metrics.json": b'{"accuracy": 0.7}',
    }
    assert opened == [Path("runs/rlhf-1/report.html").absolute().as_uri()]


def test_a_collect_that_was_cut_off_goes_on(ended: Service, store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: list[str] = []
    get_file = store.get_file

    def cut(source: str, target: str) -> None:
        fetched.append(source)
        if source.endswith("vocab.json") and len(fetched) < 10:
            Path(target).write_text("half")
            raise ConnectionResetError("cut")
        get_file(source, target)

    monkeypatch.setattr(store, "get_file", cut)
    assert "cut" in str(ended.on("collect", "run-0", "--out", "out").exception)
    assert not Path("out/model/tokenizer/vocab.json").exists()
    assert not Path("out/model/manifest.json").exists()
    # Whole by its size alone.
    Path("out/model/README.md").write_bytes(b"x" * len(model()["README.md"]))
    fetched[:] = ["earlier"] * 10
    assert ended.on("collect", "run-0", "--out", "out").exit_code == 0
    assert {f"model/{name}": data for name, data in model().items()}.items() <= files_in(Path("out")).items()
    assert not any(source.endswith("model.safetensors") for source in fetched)
    assert not list(Path("out").rglob("*.part"))


def test_a_file_that_is_not_what_the_manifest_says_is_not_kept(ended: Service, store: Any) -> None:
    leave(store, "/runs/rlhf/run-0/export/id/model", {"model.safetensors": b"other" * 1400})
    text = str(ended.on("collect", "run-0", "--out", "out").exception)
    assert text.startswith("s3://runs/rlhf/run-0/export/id/model/model.safetensors is not what its manifest.json says")
    assert not Path("out/model/model.safetensors").exists()


def test_a_name_that_leads_out_of_the_folder_is_refused(ended: Service, store: Any) -> None:
    outside = {"../../../escaped": b"x"}
    leave(store, "/runs/rlhf/run-0/export/id/model", {"manifest.json": manifest(outside)})
    assert "leads out of the folder" in str(ended.on("collect", "run-0").exception)
    assert not Path("escaped").exists()


def test_a_folder_of_something_else_is_refused(ended: Service) -> None:
    Path("out").mkdir()
    Path("out/thesis.txt").write_text("mine")
    text = "--out out holds 'thesis.txt', which podium collect did not bring; name a new folder"
    assert str(ended.on("collect", "run-0", "--out", "out").exception) == text
    assert files_in(Path("out")) == {"thesis.txt": b"mine"}
    Path("out/thesis.txt").unlink()
    Path("out/.podium-collect.json").write_text('{"run": "run-7"}')
    text = "--out out holds the results of run-7; name another folder"
    assert str(ended.on("collect", "run-0", "--out", "out").exception) == text


def test_a_model_from_the_cache_is_found_by_its_card(ended: Service, store: Any) -> None:
    store.rm("/runs/rlhf/run-0", recursive=True)
    leave(store, "/runs/rlhf/run-5/export/id/model", model())
    leave(store, "/runs/rlhf/run-6/export/id/model", model("# Model\n\nAnother summary."))
    leave(store, "/runs/rlhf/run-6/ppo/id/model", model())
    result = ended.on("collect", "run-0", "--out", "out")
    assert "Model   out/model" in result.stdout
    assert Path("out/model/README.md").read_bytes() == model()["README.md"]
    # Two that fit are none.
    leave(store, "/runs/rlhf/run-7/export/id/model", model())
    assert "Model   none" in ended.on("collect", "run-0", "--out", "out2").stdout


def test_of_a_run_that_failed_comes_what_there_is(ended: Service, store: Any) -> None:
    ended.fake.states = ("FAILED",)
    store.rm("/runs/rlhf/run-0/export", recursive=True)
    result = ended.on("collect", "run-0", "--out", "out")
    assert result.exit_code == 0
    assert result.stdout.splitlines()[1:3] == ["Report  out/report.html", "Model   none"]
    assert result.stderr == "Note: the run is failed; podium status run-0 says more\n"
    store.rm("/runs/rlhf", recursive=True)
    store.rm("/runs/runs", recursive=True)
    text = str(ended.on("collect", "run-0", "--out", "out2").exception)
    assert text == "run-0 has left no results in s3://runs: podium status run-0 says how far it came"
    assert not Path("out2").exists()


def test_a_model_that_is_being_written_is_not_taken_for_whole(ended: Service, store: Any) -> None:
    store.rm("/runs/rlhf/run-0/export/id/model/manifest.json")
    assert "has no manifest.json: the model is not whole" in str(ended.on("collect", "run-0").exception)


def test_without_storage_results_are_on_the_page(kubeflow: Service) -> None:
    kubeflow.set("kubeflow", storage=None)
    text = str(kubeflow.on("collect", "run-0").exception)
    assert text.startswith("platform.kubeflow.storage is not set: the results of run-0 are in the service's own store")


def test_vertex_says_where_its_artifacts_are(vertex: Service, store: Any, tmp_path: Path) -> None:
    vertex.submit()
    (name,) = vertex.fake.jobs
    vertex.fake.exported = "gs://runs/1/earlier/export_1/model"
    leave(store, "/runs/1/earlier/export_1/model", model())
    result = call("collect", name, "--out", str(tmp_path / "out"))
    assert f"Model   {tmp_path}/out/model" in result.stdout
    assert isinstance(call("collect", "projects/x").exception, UserError)
