"""Just enough of the Kubernetes API for its real client: the pods of one run, their logs and events, services."""

import re
from dataclasses import dataclass, field
from typing import Any

from support.json_server import Answer, JsonServer, Request

TIME = "2026-01-01T00:00:00Z"


def pod(
    name: str,
    stage: str,
    phase: str = "Succeeded",
    *,
    driver: bool = False,
    launched: bool = False,
    state: dict[str, Any] | None = None,
    log: str = "",
    **status: Any,
) -> dict[str, Any]:
    """Return a pod of a stage as KFP makes it; `state` is the main container's, where it is not what the phase says."""
    own = ["launch", stage] if launched else [stage]
    words = ["--task_name", stage] if driver else ["--executor_input", "{}", "--", "python", "-m", "podium", *own]
    running = {"running": {"startedAt": TIME}}
    of_phase = {"Running": running, "Pending": {"waiting": {"reason": "PodInitializing"}}}
    ended = {
        "terminated": {"exitCode": int(phase == "Failed"), "reason": "Error" if phase == "Failed" else "Completed"}
    }
    main = {"name": "main", "image": "trainer:1", "ready": False, "restartCount": 0, "imageID": ""}
    container = {"name": "main", "command": ["/var/run/argo/argoexec", "emissary", "--"], "args": words}
    return {
        "metadata": {"name": name, "creationTimestamp": TIME},
        "spec": {"containers": [{**container, "resources": {"limits": {"memory": "2Gi"}}}]},
        "status": {
            "phase": phase,
            "containerStatuses": [{**main, "state": state or of_phase.get(phase, ended)}],
            **status,
        },
        "log": log,
    }


@dataclass
class FakeKubernetes:
    """A cluster; `refused` is the status of every answer, where there is one."""

    pods: list[dict[str, Any]] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    # Nodes of the run's workflow: messages by names.
    nodes: dict[str, str] = field(default_factory=dict)
    services: set[str] = field(default_factory=set)
    namespaces: tuple[str, ...] = ("kubeflow",)
    # Data of ConfigMaps by their names; what may not be done, as "verb resource subresource".
    config_maps: dict[str, dict[str, str]] = field(default_factory=dict)
    denied: tuple[str, ...] = ()
    # Groups of kinds, and objects of these, by name.
    kinds: tuple[str, ...] = ()
    objects: tuple[str, ...] = ()
    refused: int | None = None
    # Pods that are listed and have no log any more.
    gone: tuple[str, ...] = ()
    server: JsonServer | None = None

    @property
    def requests(self) -> list[Request]:
        """Return what was asked."""
        assert self.server is not None
        return self.server.requests

    def route(self, request: Request) -> Answer:
        """Answer one request."""
        if self.refused:
            return self.refused, {"kind": "Status", "message": "pods is forbidden: no", "code": self.refused}
        if request.path == "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews":
            wanted = request.body["spec"]["resourceAttributes"]
            words = [wanted.get(key) for key in ("verb", "resource", "subresource")]
            return 201, {"spec": {}, "status": {"allowed": " ".join(filter(None, words)) not in self.denied}}
        if request.path == "/apis/argoproj.io/v1alpha1/namespaces/kubeflow/workflows":
            nodes = {
                str(number): {"name": name, "message": text} for number, (name, text) in enumerate(self.nodes.items())
            }
            return 200, {"items": [{"metadata": {}, "status": {"nodes": nodes}}]}
        if match := re.fullmatch(r"/apis/(trainer.kubeflow.org|jobset.x-k8s.io)/[^/]+(/namespaces/.*)?", request.path):
            there = match[1] in self.kinds and (
                request.method == "DELETE" or not match[2] or match[2].rpartition("/")[2] in self.objects
            )
            return (
                (200, {"metadata": {}, "groupVersion": "a/b", "resources": []})
                if there
                else (404, {"message": "not found"})
            )
        if match := re.fullmatch(r"/api/v1/namespaces/([^/]+)", request.path):
            return (200, {"metadata": {}}) if match[1] in self.namespaces else (404, {"message": "not found"})
        match = re.fullmatch(r"/api/v1/namespaces/([^/]+)/([^/]+)(?:/([^/]+)(/log)?)?", request.path)
        if match is None:
            return 404, {"message": request.path}
        namespace, kind, name, log = match.groups()
        if kind == "services":
            return (
                (200, {"metadata": {}}) if f"{namespace}/{name}" in self.services else (404, {"message": "not found"})
            )
        if kind == "configmaps":
            data = self.config_maps.get(name)
            if "get configmaps" in self.denied:
                return 403, {"message": "configmaps is forbidden"}
            return (200, {"data": data}) if data is not None else (404, {"message": "not found"})
        if kind == "events":
            return 200, {"items": self.events}
        if log:
            return self._log(name, request)
        return 200, {"items": self.pods}

    def _log(self, name: str, request: Request) -> Answer:
        if name in self.gone:
            return 404, {"message": f'pods "{name}" not found'}
        (found,) = [one for one in self.pods if one["metadata"]["name"] == name]
        state = found["status"]["containerStatuses"][0]["state"]
        if "waiting" in state:
            return 400, {"message": f'container "main" in pod "{name}" is waiting to start'}
        lines = found["log"].splitlines(keepends=True)
        return 200, "".join(lines[-int(request.query.get("tailLines", len(lines))) :])
