"""Just enough of the web interfaces of Kubeflow Pipelines, Kubernetes and Vertex AI for their real clients."""

import re
from dataclasses import dataclass, field
from typing import Any

from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2

from support.json_server import Answer, Request

TIME = "2026-01-01T00:00:00Z"


@dataclass
class FakeKubeflow:
    """The API of Kubeflow Pipelines: experiments and runs, which move one state further at each look."""

    states: tuple[str, ...] = ("PENDING", "RUNNING", "SUCCEEDED")
    runs: dict[str, dict[str, Any]] = field(default_factory=dict)
    experiments: dict[str, dict[str, Any]] = field(default_factory=dict)
    multi_user: bool = False

    def route(self, request: Request) -> Answer:
        """Answer one request."""
        path = request.path.removeprefix("/apis/v2beta1")
        if path == "/healthz":
            return 200, {"commit_sha": "0", "tag_name": "2.17.0", "multi_user": self.multi_user}
        if path == "/experiments":
            return self._experiments(request)
        if path == "/runs" and request.method == "POST":
            return self._create(request.body)
        if (match := re.fullmatch(r"/runs/([^/:]+)(:terminate)?", path)) and match[1] in self.runs:
            return self._run(self.runs[match[1]], terminate=bool(match[2]))
        return _kubeflow_error(404, 5, f"Resource not found: {path}")

    def _experiments(self, request: Request) -> Answer:
        if request.method == "GET":
            return 200, {"experiments": list(self.experiments.values())}
        made = {**request.body, "experiment_id": f"experiment-{len(self.experiments)}", "created_at": TIME}
        self.experiments[made["experiment_id"]] = made
        return 200, made

    def _create(self, body: dict[str, Any]) -> Answer:
        sent = body["pipeline_spec"]
        # Two documents, where there are platform settings, arrive under two keys.
        json_format.ParseDict(sent.get("pipeline_spec", sent), pipeline_spec_pb2.PipelineSpec())
        run = {**body, "run_id": f"run-{len(self.runs)}", "state": self.states[0], "created_at": TIME, "looks": 0}
        self.runs[run["run_id"]] = run
        return 200, run

    def _run(self, run: dict[str, Any], *, terminate: bool) -> Answer:
        if terminate and run["state"] not in ("PENDING", "RUNNING"):
            text = f"Failed to terminate a run {run['run_id']}. Row not found"
            return _kubeflow_error(400, 3, text)
        if terminate:
            run["state"] = "CANCELED"
            return 200, {}
        if run["state"] != "CANCELED":
            run["looks"] = min(run["looks"] + 1, len(self.states) - 1)
            run["state"] = self.states[run["looks"]]
        tasks = [
            {"display_name": name, "state": run["state"]} for name in ("root", "reward-driver", "reward", "prepare")
        ]
        error = {"error": {"message": "reward ran out of memory"}} if run["state"] == "FAILED" else {}
        return 200, {**run, **error, "run_details": {"task_details": tasks}}


def _kubeflow_error(status: int, code: int, message: str) -> Answer:
    """Return an error as the gateway of Kubeflow's API writes it."""
    return status, {"code": code, "message": message, "details": []}


@dataclass
class FakeKubernetes:
    """Pods of one run, and what they printed; `refused` is the status of every answer, where there is one."""

    pods: dict[str, list[str]] = field(default_factory=dict)
    services: set[str] = field(default_factory=set)
    refused: int | None = None
    requests: list[Request] = field(default_factory=list)

    def route(self, request: Request) -> Answer:
        """Answer one request."""
        if self.refused:
            return self.refused, {"kind": "Status", "message": "pods is forbidden: no", "code": self.refused}
        if match := re.fullmatch(r"/api/v1/namespaces/([^/]+/services/[^/]+)", request.path):
            return (200, {"metadata": {}}) if match[1] in self.services else (404, {"message": "not found"})
        if match := re.fullmatch(r"/api/v1/namespaces/kubeflow/pods/([^/]+)/log", request.path):
            return 200, f"{match[1]} says hello\n{request.query['container']}\n"
        if request.path == "/api/v1/namespaces/kubeflow/pods":
            return 200, {"items": [self._pod(name, command) for name, command in self.pods.items()]}
        return 404, {"message": request.path}

    def _pod(self, name: str, command: list[str]) -> dict[str, Any]:
        containers = [{"name": "main", "command": ["/launcher"], "args": command}]
        return {"metadata": {"name": name, "creationTimestamp": TIME}, "spec": {"containers": containers}}


@dataclass
class FakeVertex:
    """The REST interface of Vertex AI's pipeline jobs, which move one state further at each look."""

    states: tuple[str, ...] = ("PENDING", "RUNNING", "SUCCEEDED")
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    looks: dict[str, int] = field(default_factory=dict)

    def route(self, request: Request) -> Answer:
        """Answer one request."""
        pattern = r"/v1/(projects/[^/]+/locations/[^/]+/pipelineJobs)(?:/([^/:]+))?(:cancel)?"
        match = re.fullmatch(pattern, request.path)
        if match is None:
            return _google_error(404, "NOT_FOUND", request.path)
        if request.method == "POST" and match[2] is None:
            return self._create(f"{match[1]}/{request.query['pipelineJobId']}", request.body)
        name = f"{match[1]}/{match[2]}"
        if name not in self.jobs:
            return _google_error(404, "NOT_FOUND", f"{name} does not exist")
        return self._job(name, cancel=bool(match[3]))

    def _create(self, name: str, body: dict[str, Any]) -> Answer:
        json_format.ParseDict(body["pipelineSpec"], pipeline_spec_pb2.PipelineSpec())
        self.jobs[name] = {**body, "name": name, "state": f"PIPELINE_STATE_{self.states[0]}", "createTime": TIME}
        self.looks[name] = 0
        return 200, self.jobs[name]

    def _job(self, name: str, *, cancel: bool) -> Answer:
        job = self.jobs[name]
        if cancel:
            job["state"] = "PIPELINE_STATE_CANCELLED"
            return 200, {}
        if job["state"] != "PIPELINE_STATE_CANCELLED":
            self.looks[name] = min(self.looks[name] + 1, len(self.states) - 1)
            job["state"] = f"PIPELINE_STATE_{self.states[self.looks[name]]}"
        failed = job["state"].endswith("FAILED")
        state, error = ("FAILED", {"error": {"code": 9, "message": "out of quota"}}) if failed else ("SUCCEEDED", {})
        details = [{"taskName": "rlhf"}, {"taskName": "prepare", "state": state, **error}]
        return 200, {**job, **error, "jobDetail": {"taskDetails": details}}


def _google_error(code: int, status: str, message: str) -> Answer:
    return code, {"error": {"code": code, "message": message, "status": status}}
