"""What the Kubernetes cluster behind a run knows: it is asked as kubectl is, with the kubeconfig, or as a pod."""

import contextlib
import io
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import urllib3
from kubernetes import client, config

from podium.errors import UserError
from podium_pipelines.api_errors import reason_of
from podium_pipelines.multihost.names import JOBSET, LAST_S, RUN_LABEL, TRAINER

# Seconds to connect, and to wait for an answer.
_TIMEOUT_S = (5, 30)


class ClusterRefused(UserError):
    """The cluster cannot be asked: no kubeconfig, no way to it, no rights."""


class Cluster:
    """The cluster of the kubeconfig; every call raises ClusterRefused where it gives no answer."""

    def __init__(self) -> None:
        self._settings = _settings()
        self._core = client.CoreV1Api(client.ApiClient(self._settings))

    def pods(self, namespace: str, run: str) -> list[Any]:
        """Return the pods of a Kubeflow run, oldest first."""
        with self._calls():
            found = self._core.list_namespaced_pod(
                namespace, label_selector=f"pipeline/runid={run}", _request_timeout=_TIMEOUT_S
            )
        return sorted(found.items, key=lambda pod: str(pod.metadata.creation_timestamp))

    def log(self, namespace: str, pod: str, *, follow: bool = False, last: int | None = None) -> Iterator[str]:
        """Yield what the main container of a pod printed: all, or the last lines; with `follow` until it ends."""
        options = {"tail_lines": last} if last else {}
        timeout = (_TIMEOUT_S[0], None) if follow else _TIMEOUT_S
        with self._calls():
            read = partial(self._core.read_namespaced_pod_log, container="main", follow=follow, **options)
            stream = _found(partial(read, _preload_content=False), pod, namespace, timeout_s=timeout)
            if stream is None:
                # A pod that was taken away since it was listed.
                return
            # Its end closes it otherwise, under the wrapper that still holds lines.
            stream.auto_close = False
            with stream:
                for line in io.TextIOWrapper(stream, encoding="utf-8", errors="replace"):
                    yield line.rstrip("\n")

    def warnings(self, namespace: str, pod: str) -> list[str]:
        """Return what Kubernetes warned of about a pod, oldest first."""
        with self._calls():
            found = self._core.list_namespaced_event(
                namespace, field_selector=f"involvedObject.name={pod},type=Warning", _request_timeout=_TIMEOUT_S
            )
        events = sorted(found.items, key=lambda event: str(event.last_timestamp or event.event_time))
        return [f"{event.reason}: {event.message}" for event in events]

    def workflows(self, namespace: str, run: str) -> list[dict[str, Any]]:
        """Return the workflows of a Kubeflow run, of which there is one."""
        objects = client.CustomObjectsApi(self._core.api_client)
        with self._calls():
            found = objects.list_namespaced_custom_object(
                "argoproj.io",
                "v1alpha1",
                namespace,
                "workflows",
                label_selector=f"pipeline/runid={run}",
                _request_timeout=_TIMEOUT_S,
            )
        return list(found["items"])

    def has_service(self, namespace: str, name: str) -> bool:
        """Tell whether a namespace has a service."""
        with self._calls():
            return _found(self._core.read_namespaced_service, name, namespace) is not None

    def has_namespace(self, namespace: str) -> bool:
        """Tell whether there is a namespace."""
        with self._calls():
            return _found(self._core.read_namespace, namespace) is not None

    def has_kind(self, group: str, version: str) -> bool:
        """Tell whether the cluster knows a group of kinds."""
        objects = client.CustomObjectsApi(self._core.api_client)
        with self._calls():
            return _found(objects.get_api_resources, group, version) is not None

    def has_object(self, group: str, version: str, namespace: str, plural: str, name: str) -> bool:
        """Tell whether a namespace has an object of a kind that is not Kubernetes' own."""
        objects = client.CustomObjectsApi(self._core.api_client)
        with self._calls():
            return _found(objects.get_namespaced_custom_object, group, version, namespace, plural, name) is not None

    def end_hosts(self, namespace: str, run: str) -> None:
        """Delete the jobs in which stages of a run work on several hosts, and their pods within seconds."""
        objects = client.CustomObjectsApi(self._core.api_client)
        chosen = f"{RUN_LABEL}={run}"
        with self._calls():
            for group, plural in ((TRAINER, "trainjobs"), (JOBSET, "jobsets")):
                delete = partial(objects.delete_collection_namespaced_custom_object, label_selector=chosen)
                _found(delete, *group, namespace, plural)
            self._core.delete_collection_namespaced_pod(
                namespace, label_selector=chosen, grace_period_seconds=LAST_S, _request_timeout=_TIMEOUT_S
            )

    def config_map(self, namespace: str, name: str) -> dict[str, str]:
        """Return what a ConfigMap holds; nothing where there is none."""
        with self._calls():
            found = _found(self._core.read_namespaced_config_map, name, namespace)
        return dict(found.data or {}) if found is not None else {}

    def may(self, namespace: str, verb: str, resource: str, subresource: str = "") -> bool:
        """Tell whether this user may do something in a namespace."""
        wanted = client.V1ResourceAttributes(
            namespace=namespace, verb=verb, resource=resource, subresource=subresource or None
        )
        review = client.V1SelfSubjectAccessReview(spec=client.V1SelfSubjectAccessReviewSpec(resource_attributes=wanted))
        reviews = client.AuthorizationV1Api(self._core.api_client)
        with self._calls():
            answer = reviews.create_self_subject_access_review(review, _request_timeout=_TIMEOUT_S)
        return bool(answer.status.allowed)

    @property
    def host(self) -> str:
        """Return the address of the cluster."""
        return str(self._settings.host)

    @contextlib.contextmanager
    def _calls(self) -> Iterator[None]:
        try:
            yield
        except client.ApiException as error:
            raise ClusterRefused(_refusal(error)) from error
        except (urllib3.exceptions.HTTPError, OSError) as error:
            reason = str(error).rpartition(": ")[2]
            raise ClusterRefused(
                f"the cluster of your kubeconfig cannot be reached at {self._settings.host}: {reason}; set KUBECONFIG"
            ) from error


def _found(read: Callable[..., Any], *names: str, timeout_s: tuple[int, int | None] = _TIMEOUT_S) -> Any:
    """Return an object, or None where there is none."""
    try:
        return read(*names, _request_timeout=timeout_s)
    except client.ApiException as error:
        if error.status != 404:
            raise
        return None


def _settings() -> client.Configuration:
    """Return where the cluster is and who asks.

    Raises:
        ClusterRefused: There is no kubeconfig, or nothing in it that can be used.
    """
    result = client.Configuration()
    # urllib3 would say each of its further tries on standard error.
    result.retries = False
    try:
        config.load_kube_config(client_configuration=result)
    except config.ConfigException as error:
        try:
            config.load_incluster_config(client_configuration=result)
        except config.ConfigException:
            raise ClusterRefused(_unusable(str(error))) from error
    return result


def _unusable(said: str) -> str:
    if "No configuration found" in said:
        return "the pods of a run are read from the cluster, and no kubeconfig was found; set KUBECONFIG"
    return f"the kubeconfig cannot be used: {said}; mend it, or set KUBECONFIG"


def _refusal(error: Any) -> str:
    if error.status == 401:
        return "the cluster of your kubeconfig does not know you (401): its token may have expired; log in again"
    said = reason_of(error)
    if error.status == 403:
        return f"the cluster does not let you: {said}; ask for the right, or take another context of the kubeconfig"
    return f"Kubernetes: {said}"
