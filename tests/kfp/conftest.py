"""What the tests of pipelines share."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import google.auth
import pytest
from google.auth.credentials import AnonymousCredentials

from support.fake_kubernetes import FakeKubernetes
from support.fake_services import FakeKubeflow, FakeVertex
from support.json_server import JsonServer
from support.pipeline_runs import Runs, make_runs
from support.services import Service, use_kubeconfig, write_config
from support.stores import in_memory


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    """Return a folder with a small config and its data files."""
    return make_runs(tmp_path)


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a store that holds the files of `write_config`."""
    found = in_memory(monkeypatch)
    found.pipe({f"/submitted/{name}": name.encode() for name in ("a.jsonl", "b.jsonl", "m/config.json")})
    return found


@pytest.fixture
def no_traces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Look again at once, and see nothing of the user whose machine this is."""
    monkeypatch.setattr("podium_pipelines.watch.time.sleep", lambda _: None)
    monkeypatch.setattr("podium_pipelines.pod_logs._POLL_S", 0.2)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("KF_PIPELINES_ENDPOINT", raising=False)
    use_kubeconfig(tmp_path / "kubeconfig", monkeypatch, None)


@pytest.fixture
def kubeflow(tmp_path: Path, store: Any, no_traces: None) -> Iterator[Service]:
    """Return a fake Kubeflow Pipelines server."""
    fake = FakeKubeflow()
    with JsonServer(fake.route) as server:
        settings = {"host": server.url, "storage": "s3://runs", "service_account": "runner"}
        yield Service(fake, server, write_config(tmp_path, target="kubeflow", kubeflow=settings))


@pytest.fixture
def cluster(tmp_path: Path, no_traces: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeKubernetes]:
    """Return a fake of the Kubernetes API, which the kubeconfig names."""
    fake = FakeKubernetes()
    with JsonServer(fake.route) as server:
        fake.server = server
        use_kubeconfig(tmp_path / "kubeconfig", monkeypatch, server.url)
        yield fake


@pytest.fixture
def vertex(tmp_path: Path, store: Any, no_traces: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    """Return a fake Vertex AI."""
    from google.cloud.aiplatform.utils import gcs_utils

    monkeypatch.setattr(google.auth, "default", lambda **_: (AnonymousCredentials(), "project"))
    # It asks Cloud Storage, and logs a stack trace when that is not there.
    monkeypatch.setattr(gcs_utils, "create_gcs_bucket_for_pipeline_artifacts_if_it_does_not_exist", lambda **_: None)
    fake = FakeVertex()
    with JsonServer(fake.route) as server:
        settings = {
            "project": "project",
            "region": "europe-west4",
            "staging_bucket": "gs://runs",
            "service_account": "runner@project",
            "encryption_key": "projects/p/locations/l/keyRings/r/cryptoKeys/k",
            "api_endpoint": server.url,
            "api_transport": "rest",
        }
        yield Service(fake, server, write_config(tmp_path, target="vertex", vertex=settings))
