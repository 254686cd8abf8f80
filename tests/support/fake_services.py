"""Just enough of the web interfaces of Kubeflow Pipelines and Vertex AI for their real clients."""

import re
from dataclasses import dataclass, field
from typing import Any

from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2

from support.json_server import Answer, Request

TIME = "2026-01-01T00:00:00Z"
# How the service writes a time that is not set.
NEVER = "0001-01-01T00:00:00Z"
_UNENDED = ("PENDING", "RUNNING")


@dataclass
class FakeKubeflow:
    """The API of Kubeflow Pipelines: experiments and runs, which move one state further at each look."""

    states: tuple[str, ...] = ("PENDING", "RUNNING", "SUCCEEDED")
    runs: dict[str, dict[str, Any]] = field(default_factory=dict)
    experiments: dict[str, dict[str, Any]] = field(default_factory=dict)
    multi_user: bool = False
    version: str = "2.17.0"
    # What `task_details` lists in place of stages that are as far as the run.
    nodes: list[dict[str, Any]] | None = None

    def route(self, request: Request) -> Answer:
        """Answer one request."""
        path = request.path.removeprefix("/apis/v2beta1")
        if path == "/healthz":
            return 200, {"commit_sha": "0", "tag_name": self.version, "multi_user": self.multi_user}
        if path == "/experiments":
            return self._experiments(request)
        if path == "/runs" and request.method == "POST":
            return self._create(request.body)
        if path == "/runs":
            assert request.query["sort_by"] == "created_at desc"
            mine = [run for run in self.runs.values() if run["experiment_id"] == request.query["experiment_id"]]
            return 200, {"runs": mine[::-1][: int(request.query["page_size"])]}
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
            # A cancelled run ends as failed; its history alone says why.
            run["state"], run["state_history"] = "FAILED", [{"state": "RUNNING"}, {"state": "CANCELING"}]
            return 200, {}
        if "state_history" not in run:
            run["looks"] = min(run["looks"] + 1, len(self.states) - 1)
            run["state"] = self.states[run["looks"]]
        nodes = [node for stage in ("reward", "prepare") for node in stage_nodes(stage, run["state"])]
        tasks = [{"display_name": "root", "state": run["state"]}, *(nodes if self.nodes is None else self.nodes)]
        finished = {} if run["state"] in _UNENDED else {"finished_at": "2026-01-01T00:02:00Z"}
        return 200, {**run, **finished, "run_details": {"task_details": tasks}}


def stage_nodes(
    stage: str,
    state: str,
    *,
    seconds: tuple[int, int] = (0, 30),
    executors: tuple[str, ...] | None = None,
) -> list[dict[str, Any]]:
    """Return what the service lists of a stage: Argo's nodes, in no order, whose executors do not name their stage.

    seconds: begin and end of the stage. executors: the state of each attempt; one alone that was skipped is a cached
    step's.
    """
    begin, end = (f"2026-01-01T00:{second // 60:02}:{second % 60:02}Z" for second in seconds)
    times = {"create_time": begin, "start_time": begin, "end_time": end if state not in _UNENDED else NEVER}
    tries = [state] if executors is None else executors
    names = ["executor"] if len(tries) == 1 else [f"executor({number})" for number in range(len(tries))]
    return [
        *({"display_name": name, "state": one, **times} for name, one in zip(names, tries, strict=True)),
        {"display_name": stage, "state": state, **times},
        {"display_name": f"{stage}-driver", "state": "SUCCEEDED", **times},
        {"display_name": f"{stage}(0)", **times},
    ]


def _kubeflow_error(status: int, code: int, message: str) -> Answer:
    """Return an error as the gateway of Kubeflow's API writes it."""
    return status, {"code": code, "message": message, "details": []}


@dataclass
class FakeVertex:
    """The REST interface of Vertex AI's pipeline jobs, which move one state further at each look."""

    states: tuple[str, ...] = ("PENDING", "RUNNING", "SUCCEEDED")
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    looks: dict[str, int] = field(default_factory=dict)
    # The URI of the model that the task `export` made, or took from the cache.
    exported: str | None = None

    def route(self, request: Request) -> Answer:
        """Answer one request."""
        pattern = r"/v1/(projects/[^/]+/locations/[^/]+/pipelineJobs)(?:/([^/:]+))?(:cancel)?"
        match = re.fullmatch(pattern, request.path)
        if match is None:
            return _google_error(404, "NOT_FOUND", request.path)
        if request.method == "GET" and match[2] is None:
            if request.query["filter"].startswith("display_name="):
                return 200, {}
            assert request.query["filter"] == "labels.podium:*"
            return 200, {"pipelineJobs": list(self.jobs.values())}
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
        state, error = ("FAILED", {"error": {"code": 9, "message": "out of quota"}}) if failed else ("RUNNING", {})
        tries = [{"state": one, "updateTime": TIME} for one in ("RUNNING", "PENDING", "RUNNING")]
        details = [
            {"taskName": "rlhf"},
            {"taskName": "prepare", "state": "SKIPPED", "startTime": TIME, "endTime": TIME},
            {
                "taskName": "reward",
                "state": state,
                "startTime": TIME,
                "endTime": "2026-01-01T00:01:05Z",
                "pipelineTaskStatus": tries,
                **error,
            },
        ]
        if self.exported is not None:
            made = {"model": {"artifacts": [{"uri": self.exported}]}}
            details.append({"taskName": "export", "state": "SKIPPED", "outputs": made})
        times = {"createTime": TIME, "endTime": "2026-01-01T00:02:00Z"}
        return 200, {**job, **error, **times, "jobDetail": {"taskDetails": details}}


def _google_error(code: int, status: str, message: str) -> Answer:
    return code, {"error": {"code": code, "message": message, "status": status}}
