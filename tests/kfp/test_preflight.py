"""What submit looks at before it sends a run: what would fail stops it, what cannot be seen is said."""

from typing import Any

import pytest

from podium.config import PlatformConfig, load_config
from podium.errors import UserError
from podium_pipelines import remote
from podium_pipelines.preflight import Finding, of_hosts
from support.fake_kubernetes import FakeKubernetes
from support.services import Service

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")

PROVIDERS = {"kfp-launcher": {"providers": "s3:\n  default:\n    endpoint: s3.amazonaws.com\n"}}
IMAGE = "platform.image=registry.example/trainer:1"


@pytest.fixture
def good(kubeflow: Service, cluster: FakeKubernetes) -> FakeKubernetes:
    """Return a cluster that has everything."""
    cluster.config_maps = PROVIDERS
    return cluster


def findings(service: Service, target: str = "kubeflow") -> list[Finding]:
    """Return what is found before a run is submitted."""
    platform = load_config(service.config).platform
    return list(remote.connect(platform, target).preflight("rlhf-1"))


def notes(service: Service) -> list[str]:
    """Return findings that stop nothing."""
    found = findings(service)
    assert not any(finding.stops for finding in found)
    return [finding.text for finding in found]


def stopped(service: Service) -> list[str]:
    """Return findings that stop the submission."""
    return [finding.text for finding in findings(service) if finding.stops]


def test_where_all_is_well_nothing_is_said_or_left(kubeflow: Service, good: FakeKubernetes, store: Any) -> None:
    assert notes(kubeflow) == []
    assert not store.find("/runs")
    # Nothing but looks.
    assert {request.method for request in good.requests if "selfsubject" not in request.path} == {"GET"}


def test_notes_are_said_and_the_run_is_sent(kubeflow: Service, good: FakeKubernetes) -> None:
    good.denied = ("list pods",)
    result = kubeflow.submit(preflight=True)
    assert set(kubeflow.fake.runs) == {"run-0"}
    first, second = result.stderr.splitlines()
    assert first.startswith("Note: platform.image is not set: the nodes pull podium/trainer:")
    assert second.startswith("Note: you may not list pods in the namespace kubeflow: ")
    assert kubeflow.submit(IMAGE, preflight=True).stderr.splitlines() == [second]


@pytest.mark.parametrize(
    ("version", "stops", "text"),
    [
        ("1.8.5", True, "is Kubeflow Pipelines 1.8.5; podium needs version 2"),
        ("2.5.0", False, "is Kubeflow Pipelines 2.5.0; podium is made for 2.17"),
        ("2.17.3", False, None),
        ("unknown", False, None),
    ],
)
def test_a_service_of_another_version(
    kubeflow: Service, good: FakeKubernetes, version: str, stops: bool, text: str | None
) -> None:
    kubeflow.fake.version = version
    lines = stopped(kubeflow) if stops else notes(kubeflow)
    assert lines == ([f"{kubeflow.server.url} {text}"] if text else [])


def test_a_bucket_that_can_be_read_and_not_written(
    kubeflow: Service, good: FakeKubernetes, store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: str, content: bytes) -> None:
        raise PermissionError("Access Denied")

    monkeypatch.setattr(store, "pipe_file", refuse)
    (line,) = stopped(kubeflow)
    assert line.startswith("platform.kubeflow.storage: file .podium-submit: s3://runs/runs/rlhf-")
    assert "Access Denied" in line


def test_a_bucket_that_no_client_here_can_reach_is_not_looked_at(
    kubeflow: Service, good: FakeKubernetes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lacking(uri: str, **options: Any) -> Any:
        raise ImportError("no s3fs")

    monkeypatch.setattr("fsspec.core.url_to_fs", lacking)
    first, *_ = notes(kubeflow)
    assert first.startswith("platform.kubeflow.storage: whether it can be written is not looked at: s3://runs/")


def test_a_store_inside_the_cluster_is_not_looked_at(kubeflow: Service, good: FakeKubernetes) -> None:
    good.config_maps = {}
    kubeflow.set("kubeflow", storage="minio://mlpipeline/podium")
    assert notes(kubeflow) == []


def test_a_namespace_that_is_not_there(kubeflow: Service, good: FakeKubernetes) -> None:
    good.namespaces = ()
    (line,) = stopped(kubeflow)
    assert line.startswith(
        "platform.kubeflow.namespace: there is no namespace kubeflow in the cluster of your kubeconfig"
    )


def test_rights_that_are_denied(kubeflow: Service, good: FakeKubernetes) -> None:
    good.denied = ("get pods log", "list events")
    (note,) = notes(kubeflow)
    assert note.startswith(
        "you may not get pods log, list events in the namespace kubeflow: podium status will not say"
    )


@pytest.mark.parametrize("found", [None, {}, {"providers": "gs: {default: {}}"}, {"providers": "{"}])
def test_a_launcher_without_credentials_for_the_bucket(
    kubeflow: Service, good: FakeKubernetes, found: dict[str, str] | None
) -> None:
    good.config_maps = {} if found is None else {"kfp-launcher": found}
    # The account of the task may have what the launcher lacks.
    (note,) = notes(kubeflow)
    assert note.endswith("has no provider for s3://: steps must get their credentials by the account runner")
    kubeflow.set("kubeflow", service_account=None)
    (line,) = stopped(kubeflow)
    assert line.startswith(
        "platform.kubeflow.storage is s3://runs, and the ConfigMap kfp-launcher of the namespace kubeflow has no "
    )


def test_a_launcher_that_may_not_be_looked_at(kubeflow: Service, good: FakeKubernetes) -> None:
    good.denied = ("get configmaps",)
    kubeflow.set("kubeflow", service_account=None)
    (note,) = notes(kubeflow)
    assert note.startswith(
        "whether the ConfigMap kfp-launcher of the namespace kubeflow has a provider for s3:// is not"
    )


def test_a_cluster_that_cannot_be_asked_stops_nothing(kubeflow: Service) -> None:
    (note,) = notes(kubeflow)
    assert note.startswith("what the cluster would say of this run is not looked at: ")
    assert note.endswith("no kubeconfig was found; set KUBECONFIG")


def test_all_that_stops_a_run_is_said_at_once(kubeflow: Service, good: FakeKubernetes) -> None:
    good.namespaces = ()
    kubeflow.fake.version = "1.8.5"
    error = kubeflow.submit(IMAGE, preflight=True).exception
    assert isinstance(error, UserError)
    version, namespace, skip = str(error).splitlines()
    assert "podium needs version 2" in version
    assert "there is no namespace" in namespace
    assert skip == "--skip-preflight submits all the same"
    assert kubeflow.fake.runs == {}
    assert kubeflow.submit(IMAGE).exit_code == 0


def test_vertex_is_asked_before_anything_is_sent(vertex: Service, store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert vertex.submit(IMAGE, preflight=True).stderr == ""
    first = vertex.server.requests[0]
    assert (first.method, first.query["filter"].split("=")[0]) == ("GET", "display_name")
    monkeypatch.setattr(store, "pipe_file", lambda path, content: (_ for _ in ()).throw(PermissionError("denied")))
    assert str(vertex.submit(IMAGE, preflight=True).exception).startswith("platform.vertex.staging_bucket: file ")


TRAINER, JOBSET = "trainer.kubeflow.org", "jobset.x-k8s.io"


@pytest.mark.parametrize(
    ("launcher", "kinds", "objects", "said"),
    [
        ("trainjob", (), (), "has no trainer.kubeflow.org/v1alpha1; install Kubeflow Trainer"),
        ("trainjob", (TRAINER,), (), "podium manifests --namespace kubeflow | kubectl apply -f -"),
        ("trainjob", (TRAINER,), ("podium",), None),
        ("jobset", (TRAINER,), ("podium",), "has no jobset.x-k8s.io/v1alpha2; install JobSet"),
        ("jobset", (JOBSET,), (), None),
    ],
)
def test_what_several_hosts_need_is_there(
    cluster: FakeKubernetes, launcher: str, kinds: tuple[str, ...], objects: tuple[str, ...], said: str | None
) -> None:
    cluster.kinds, cluster.objects = kinds, objects
    values = {"resources": {"prepare": {}, "ppo": {"hosts": 2}}, "kubeflow": {"launcher": launcher}}
    found = list(of_hosts(PlatformConfig.model_validate(values)))
    if said is None:
        assert found == []
    else:
        (finding,) = found
        assert finding.stops
        assert finding.text.startswith("platform.resources.ppo.hosts: ")
        assert finding.text.endswith(said)


def test_one_host_needs_no_look(cluster: FakeKubernetes) -> None:
    assert list(of_hosts(PlatformConfig.model_validate({"resources": {"ppo": {"cpu": "4"}}}))) == []
    assert cluster.requests == []
