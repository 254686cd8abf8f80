"""submit, status, cancel and logs: the real clients of Kubeflow and Vertex AI against fakes of their services."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from podium.config import STAGES
from support.services import Service
from support.stores import out_of_bounds

# The clients leave their connections to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


def test_kubeflow_gets_the_pipeline_its_root_and_its_account(kubeflow: Service) -> None:
    result = kubeflow.submit()
    assert (result.exit_code, result.stderr) == (0, "")
    run = kubeflow.fake.runs["run-0"]
    name = run["display_name"]
    assert re.fullmatch(r"rlhf-\d{8}-\d{6}", name)
    assert result.stdout == (
        f"Run     run-0\nPage    {kubeflow.server.url}/#/runs/details/run-0\n"
        f"Report  s3://runs/runs/{name}/report.html, when it is evaluated\n"
    )
    told = {"STORAGE": "s3://runs", "RUN": name}
    # Kubeflow's cache goes by no environment: all may be told.
    assert environments(run["pipeline_spec"]) == dict.fromkeys(set(STAGES) - {"sft"}, told)
    assert run["service_account"] == "runner"
    assert run["runtime_config"]["pipeline_root"] == "s3://runs"
    assert [item["display_name"] for item in kubeflow.fake.experiments.values()] == ["podium"]


def environments(sent: dict[str, Any]) -> dict[str, dict[str, str]]:
    """Return the environment variables of each task that has some."""
    executors = sent.get("pipeline_spec", sent)["deploymentSpec"]["executors"]
    return {
        name.removeprefix("exec-"): {item["name"]: item["value"] for item in one["container"]["env"]}
        for name, one in executors.items()
        if one["container"].get("env")
    }


def test_without_storage_a_run_leaves_its_report_in_its_artifacts_alone(kubeflow: Service) -> None:
    lines = kubeflow.submit("platform.kubeflow.storage=null").stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["Run", "Page"]
    assert environments(kubeflow.fake.runs["run-0"]["pipeline_spec"]) == {}


def test_a_changed_file_behind_a_uri_makes_another_key(kubeflow: Service, store: Any) -> None:
    sent = []
    for content in (b"all pairs", b"all pairs", b"half of them"):
        if not sent or content != b"all pairs":
            store.pipe("/submitted/a.jsonl", content)
        kubeflow.submit()
        sent.append(kubeflow.fake.runs[f"run-{len(sent)}"]["pipeline_spec"])
    root = [spec.get("pipeline_spec", spec)["root"] for spec in sent]
    versions = [one["inputDefinitions"]["parameters"]["data_version"]["defaultValue"] for one in root]
    assert versions[0] == versions[1] != versions[2]
    assert len({one["inputDefinitions"]["parameters"]["model_version"]["defaultValue"] for one in root}) == 1
    assert root[0]["dag"]["tasks"]["prepare"]["cachingOptions"] == {"enableCache": True}


def test_kubeflow_in_single_user_mode_is_sent_no_namespace(kubeflow: Service) -> None:
    kubeflow.submit()
    assert next(iter(kubeflow.fake.experiments.values()))["namespace"] == ""


def test_vertex_gets_the_pipeline_and_the_platform_s_settings(vertex: Service) -> None:
    result = vertex.submit()
    assert (result.exit_code, result.stderr) == (0, "")
    (name,) = vertex.fake.jobs
    job = name.rsplit("/", 1)[1]
    assert result.stdout == (
        f"Run     {name}\n"
        f"Page    https://console.cloud.google.com/vertex-ai/locations/europe-west4/pipelines/runs/{job}?project=project\n"
        f"Report  gs://runs/runs/{job.rpartition('-')[0]}/report.html, when it is evaluated\n"
    )
    sent = vertex.fake.jobs[name]
    # Its cache key holds a task's environment: what may be cached is not told the run's name.
    told = {"STORAGE": "gs://runs", "RUN": job.rpartition("-")[0]}
    assert environments(sent["pipelineSpec"]) == {"gates": told}
    assert sent["runtimeConfig"]["gcsOutputDirectory"] == "gs://runs"
    assert sent["serviceAccount"] == "runner@project"
    assert sent["encryptionSpec"]["kmsKeyName"].endswith("cryptoKeys/k")
    assert "podium" in sent["labels"]


def test_vertex_without_a_bucket_is_said(vertex: Service) -> None:
    config = yaml.safe_load(vertex.config.read_text())
    del config["platform"]["vertex"]["staging_bucket"]
    vertex.config.write_text(yaml.safe_dump(config))
    assert str(vertex.submit().exception).startswith("platform.vertex.staging_bucket is missing")


def test_files_of_this_machine_stop_a_submission(kubeflow: Service, tmp_path: Path) -> None:
    (tmp_path / "b.jsonl").write_text("{}")
    kubeflow.config.write_text(kubeflow.config.read_text().replace("gs://submitted/b.jsonl", f"{tmp_path}/b.jsonl"))
    assert str(kubeflow.submit().exception) == (
        f"{tmp_path}/b.jsonl is on this machine only, where kubeflow cannot read it; copy it to a s3:// or gs:// URI"
    )
    assert not kubeflow.fake.runs


@pytest.mark.parametrize("target", ["kubeflow", "vertex"])
def test_a_dry_run_shows_what_would_be_sent_and_asks_nobody(
    target: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    service: Service = request.getfixturevalue(target)
    service.submit()
    count = len(service.server.requests)
    out_of_bounds(monkeypatch)
    result = service.submit("--dry-run")
    assert (result.exit_code, len(service.server.requests)) == (0, count)
    assert result.stderr == "Note: nothing was sent; submit also asks the stores which version each file has\n"
    sent, *pipeline = yaml.safe_load_all(result.stdout)
    assert environments(pipeline[0])["gates"].keys() == {"STORAGE", "RUN"}
    if target == "kubeflow":
        run = service.fake.runs["run-0"]
        assert sent.pop("run_name")[:13] == run["display_name"][:13]
        assert sent == {
            "target": "kubeflow",
            "host": service.server.url,
            "namespace": "kubeflow",
            "experiment_name": "podium",
            "pipeline_root": run["runtime_config"]["pipeline_root"],
            "service_account": run["service_account"],
        }
    else:
        (job,) = service.fake.jobs.values()
        assert sent["labels"] == job["labels"]
        assert sent["pipeline_root"] == job["runtimeConfig"]["gcsOutputDirectory"]
        assert sent["service_account"] == job["serviceAccount"]
        assert sent["encryption_spec_key_name"] == job["encryptionSpec"]["kmsKeyName"]
        assert sent["job_id"].startswith(sent["display_name"])
