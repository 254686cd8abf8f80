"""What a user reads where a service is not there, is another one, or refuses: a line, at once, with what to write."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from podium.config import load_config
from podium.errors import UserError
from support.fake_kubernetes import FakeKubernetes
from support.json_server import Answer, JsonServer, Request
from support.services import Service, call, run_in, use_kubeconfig

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(autouse=True)
def at_once() -> Iterator[None]:
    """Fail a test that waits: kfp's own client asks a dead server for 20 s."""
    begin = time.monotonic()
    yield
    assert time.monotonic() - begin < 10


def error_of(result: Any) -> str:
    """Return the message of the user's error that ended a command."""
    assert isinstance(result.exception, UserError), result.exception
    return str(result.exception)


def test_a_server_that_is_not_there(kubeflow: Service, caplog: pytest.LogCaptureFixture) -> None:
    kubeflow.set("kubeflow", host="http://127.0.0.1:9")
    text = error_of(kubeflow.submit())
    assert text.startswith("Kubeflow Pipelines cannot be reached at http://127.0.0.1:9: ")
    assert "refused" in text
    # Asked once: urllib3 says each further try on the terminal.
    assert "Retrying" not in caplog.text
    assert text.endswith("write its address in platform.kubeflow.host, or open the way to it (kubectl port-forward)")


@pytest.mark.parametrize(
    "answer",
    [
        (404, "404 page not found"),
        (200, "<!doctype html><title>Log in</title>"),
        (200, {"status": "ok"}),
        (200, ["a list"]),
    ],
)
def test_another_server_or_path(kubeflow: Service, answer: Answer) -> None:
    with JsonServer(lambda _: answer) as server:
        kubeflow.set("kubeflow", host=f"{server.url}/there/")
        text = error_of(kubeflow.submit())
    assert text.startswith(f"{server.url}/there is not Kubeflow Pipelines, or not the whole of its address")
    assert text.endswith("mend platform.kubeflow.host")
    assert len(server.requests) == 1


def test_a_server_that_lets_nobody_in(kubeflow: Service) -> None:
    with JsonServer(lambda _: (401, {"message": "Unauthorized"})) as server:
        kubeflow.set("kubeflow", host=server.url)
        assert "does not let you: Unauthorized; log in, or ask" in error_of(kubeflow.submit())


def test_a_server_that_is_not_up(kubeflow: Service) -> None:
    with JsonServer(lambda _: (503, "no healthy upstream")) as server:
        kubeflow.set("kubeflow", host=server.url)
        assert "fails: 503 Service Unavailable; is it up?" in error_of(kubeflow.submit())


def test_a_host_without_a_scheme(kubeflow: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    kubeflow.set("kubeflow", host="localhost:8080")
    text = "'localhost:8080' has no scheme; write http://localhost:8080 or https://localhost:8080"
    with pytest.raises(UserError, match=text):
        load_config(kubeflow.config)
    kubeflow.set("kubeflow", host=None)
    monkeypatch.setenv("KF_PIPELINES_ENDPOINT", "localhost:8080")
    assert error_of(kubeflow.submit()) == f"KF_PIPELINES_ENDPOINT: {text}"


def test_no_address_and_no_kubeconfig(no_traces: None) -> None:
    text = error_of(call("status", "run-0"))
    assert text.startswith("where is Kubeflow Pipelines? platform.kubeflow.host is not set and no kubeconfig was found")


def test_a_config_that_is_not_there(no_traces: None, tmp_path: Path) -> None:
    assert str(tmp_path / "none.yaml") in error_of(call("status", "run-0", "--config", str(tmp_path / "none.yaml")))


@pytest.mark.parametrize("verb", ["status", "cancel", "logs"])
def test_a_run_that_the_service_does_not_know(kubeflow: Service, cluster: FakeKubernetes, verb: str) -> None:
    place = kubeflow.server.url
    assert error_of(kubeflow.on(verb, "run-9")) == (
        f"Kubeflow Pipelines at {place} knows no run run-9; is it one of another service?"
    )


def test_stopping_a_run_that_has_ended(kubeflow: Service) -> None:
    run_in(kubeflow, "SUCCEEDED")
    assert error_of(kubeflow.on("cancel", "run-0")) == "run-0 has already ended, as succeeded: there is nothing to stop"


def test_a_refusal_of_the_service_is_passed_on(kubeflow: Service) -> None:
    def refuse(request: Request) -> Answer:
        if request.path.endswith("/runs"):
            return 400, {"code": 3, "message": "the experiment is archived", "details": []}
        return kubeflow.fake.route(request)

    with JsonServer(refuse) as server:
        kubeflow.set("kubeflow", host=server.url)
        assert error_of(kubeflow.submit()) == "Kubeflow Pipelines: the experiment is archived"


def test_a_namespace_that_a_service_for_one_user_would_pass_over(kubeflow: Service, cluster: FakeKubernetes) -> None:
    kubeflow.set("kubeflow", namespace="nothere")
    text = error_of(kubeflow.submit())
    assert text.startswith("platform.kubeflow.namespace is nothere, and Kubeflow Pipelines at ")
    assert "serves one user: runs are in its own namespace; leave namespace out" in text
    # Installed there: that is where its pods are.
    cluster.services.add("nothere/ml-pipeline")
    assert kubeflow.submit().exit_code == 0
    assert kubeflow.fake.experiments["experiment-0"]["namespace"] == ""


def test_a_service_for_several_users_needs_a_namespace(kubeflow: Service) -> None:
    kubeflow.fake.multi_user = True
    assert error_of(kubeflow.submit()).startswith("platform.kubeflow.namespace is missing: Kubeflow Pipelines at ")
    kubeflow.set("kubeflow", namespace="mine")
    assert kubeflow.submit().exit_code == 0
    assert kubeflow.fake.experiments["experiment-0"]["namespace"] == "mine"


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (401, "the cluster of your kubeconfig does not know you (401): its token may have expired; log in again"),
        (403, "the cluster does not let you: pods is forbidden: no; ask for the right, or take another context"),
    ],
)
def test_a_cluster_that_refuses(kubeflow: Service, cluster: FakeKubernetes, status: int, text: str) -> None:
    run_in(kubeflow, "RUNNING")
    cluster.refused = status
    assert error_of(kubeflow.on("logs", "run-0")).startswith(text)


def test_a_cluster_that_is_not_there(kubeflow: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_in(kubeflow, "RUNNING")
    use_kubeconfig(tmp_path / "kubeconfig", monkeypatch, "http://127.0.0.1:9")
    text = error_of(kubeflow.on("logs", "run-0"))
    assert text.startswith("the cluster of your kubeconfig cannot be reached at http://127.0.0.1:9: ")


def test_no_kubeconfig_and_a_broken_one(kubeflow: Service, tmp_path: Path) -> None:
    run_in(kubeflow, "RUNNING")
    assert "no kubeconfig was found; set KUBECONFIG" in error_of(kubeflow.on("logs", "run-0"))
    (tmp_path / "kubeconfig").write_text("current-context: x\ncontexts: []\nclusters: []\nusers: []\n")
    assert "the kubeconfig cannot be used: " in error_of(kubeflow.on("logs", "run-0"))


def test_logs_of_a_run_whose_pods_are_gone(kubeflow: Service, cluster: FakeKubernetes) -> None:
    run_in(kubeflow, "SUCCEEDED")
    assert error_of(kubeflow.on("logs", "run-0")).startswith("no pods of run-0 are left in the namespace kubeflow, ")


def test_a_run_that_vertex_does_not_know(vertex: Service) -> None:
    run = "projects/project/locations/europe-west4/pipelineJobs/none"
    assert error_of(vertex.on("status", run)).startswith(f"Vertex AI knows no run {run}: ")


def test_a_name_that_no_run_of_vertex_has(vertex: Service) -> None:
    assert error_of(vertex.on("status", "projects/project/none")).endswith(
        "a run of Vertex AI is called projects/PROJECT/locations/REGION/pipelineJobs/ID"
    )


def test_stopping_a_run_of_vertex_that_has_ended(vertex: Service) -> None:
    vertex.fake.states = ("SUCCEEDED",)
    vertex.submit()
    (name,) = vertex.fake.jobs
    assert error_of(vertex.on("cancel", name)) == f"{name} has already ended, as succeeded: there is nothing to stop"


def test_a_vertex_that_is_not_there(vertex: Service) -> None:
    vertex.set("vertex", api_endpoint="http://127.0.0.1:9")
    assert error_of(vertex.submit()).startswith("Vertex AI cannot be reached: ")
