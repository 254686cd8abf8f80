"""The cluster that a task runs in: its API, the task's own pod, and whether its run is being ended."""

import contextlib
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from kubernetes import client, config
from kubernetes.client import ApiException

from podium.errors import UserError

_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
# Argo's name for the workflow of a pod.
_WORKFLOW = "workflows.argoproj.io/workflow"


@dataclass(frozen=True)
class Here:
    """The pod of a task.

    Attributes:
        namespace: Where it is.
        owner: Owner reference for what the task makes: the Workflow or Job that the pod belongs to, which outlives it,
            so that the pod of a second attempt finds the same job; else the pod.
        workflow: Name of its Argo workflow, "" where there is none.
    """

    namespace: str
    owner: Mapping[str, Any]
    workflow: str


def this_pod(env: Mapping[str, str]) -> Here:
    """Find the pod that this process runs in, with the account that the cluster gave it.

    Raises:
        UserError: It runs in no pod, or its account may not read it.
    """
    try:
        config.load_incluster_config()
        namespace = _NAMESPACE.read_text(encoding="utf-8").strip()
    except (config.ConfigException, OSError) as error:
        raise UserError(
            f"podium launch runs in a pod with a service account, and this is none ({error}); "
            "podium run and podium STAGE work here"
        ) from error
    name = env.get("KFP_POD_NAME") or env.get("HOSTNAME", "")
    try:
        pod = client.CoreV1Api().read_namespaced_pod(name, namespace)
    except ApiException as error:
        raise UserError(
            f"pod {name} cannot be read ({error.status} {error.reason}); give the account of the tasks the role that "
            f"podium manifests --namespace {namespace} prints"
        ) from error
    workflow = (pod.metadata.labels or {}).get(_WORKFLOW, "")
    return Here(namespace, _owner(pod), workflow)


def _owner(pod: Any) -> dict[str, Any]:
    owners = pod.metadata.owner_references or ()
    if owners:
        first = owners[0]
        return {"apiVersion": first.api_version, "kind": first.kind, "name": first.name, "uid": first.uid}
    return {"apiVersion": "v1", "kind": "Pod", "name": pod.metadata.name, "uid": pod.metadata.uid}


@contextlib.contextmanager
def deleted_when_cancelled(here: Here, delete: Callable[[], None]) -> Iterator[None]:
    """On SIGTERM, delete the job where its run is being ended, and leave.

    A task's pod also gets SIGTERM where it is only moved: the job then goes on, and the next pod finds it again. There
    is less than a second to tell these apart (KFP's launcher ends at once), enough for one look.
    """

    def leave(number: int, frame: FrameType | None) -> NoReturn:
        if is_ending(here):
            delete()
        os._exit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def is_ending(here: Here) -> bool:
    """Tell whether the pod's workflow was told to end."""
    if not here.workflow:
        return False
    try:
        found = client.CustomObjectsApi().get_namespaced_custom_object(
            "argoproj.io", "v1alpha1", here.namespace, "workflows", here.workflow
        )
    except ApiException as error:
        # A workflow that is gone was deleted, with the run.
        return bool(error.status == 404)
    return bool(found.get("spec", {}).get("shutdown"))
