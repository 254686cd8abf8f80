"""Runs on Vertex AI Pipelines, through Google's own client."""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from google.api_core.exceptions import GoogleAPICallError, NotFound, RetryError, ServiceUnavailable
from google.auth.exceptions import GoogleAuthError
from google.cloud import aiplatform

from podium.config import VertexConfig
from podium.errors import UserError
from podium_pipelines.preflight import Finding, of_storage
from podium_pipelines.remote import RunState, ServiceUnreachable, Task, Wanted, in_order, plain_state
from podium_pipelines.requests_sent import LABEL, vertex_job, vertex_start


class Vertex:
    """Vertex AI Pipelines in one project and region."""

    def __init__(self, settings: VertexConfig) -> None:
        self._settings = settings
        with _calls():
            aiplatform.init(
                project=settings.project,
                location=settings.region,
                api_endpoint=settings.api_endpoint,
                api_transport=settings.api_transport,
            )

    def preflight(self, name: str) -> Iterator[Finding]:
        """Yield what the bucket says of a run before it is submitted; ask the service, which may refuse."""
        with _calls():
            # Project, region, rights, and whether the service is switched on there.
            aiplatform.PipelineJob.list(filter=f'display_name="{name}"', enable_simple_view=True)
        yield from of_storage("platform.vertex.staging_bucket", self._settings.staging_bucket, name)

    def submit(self, spec: Path, name: str) -> str:
        """Start a run and return its resource name."""
        if self._settings.staging_bucket is None:
            raise UserError(
                "platform.vertex.staging_bucket is missing: runs keep their artifacts there; write gs://BUCKET"
            )
        with _calls():
            job = aiplatform.PipelineJob(template_path=str(spec), **vertex_job(self._settings, name))
            job.submit(**vertex_start(self._settings))
        return str(job.resource_name)

    def address(self, run: str) -> str:
        """Return the address of a run's page."""
        project, region, job = _parts(run)
        return f"https://console.cloud.google.com/vertex-ai/locations/{region}/pipelines/runs/{job}?project={project}"

    def state(self, run: str) -> RunState:
        """Return how far a run is."""
        return _state(self._run(run))

    def runs(self, limit: int) -> list[tuple[str, RunState]]:
        """Return the newest runs that carry the label of `submit`."""
        with _calls():
            found = aiplatform.PipelineJob.list(
                filter=f"labels.{LABEL}:*", order_by="create_time desc", enable_simple_view=True
            )
        return [(job.resource_name, _state(job.gca_resource)) for job in found[:limit]]

    def artifacts(self, run: str) -> dict[str, dict[str, str]]:
        """Return the URIs of the artifacts that a run has made or taken from the cache."""
        return {
            task.task_name: {name: made.artifacts[0].uri for name, made in task.outputs.items() if made.artifacts}
            for task in self._run(run).job_detail.task_details
        }

    def cancel(self, run: str) -> None:
        """Ask the service to stop a run."""
        state = self.state(run)
        if state.finished:
            raise UserError(f"{run} has already ended, as {state.state}: there is nothing to stop")
        with _calls():
            aiplatform.PipelineJob.get(run).cancel()

    def logs(self, run: str, wanted: Wanted) -> Iterator[str]:
        """Yield why stages failed, and the command that shows everything: output itself is in Cloud Logging."""
        for stage, task in self.state(run).stages.items():
            if task.reason and wanted.stage in (None, stage):
                yield f"== {stage}"
                yield from task.reason
        project, _, job = _parts(run)
        query = f'labels."ml.googleapis.com/pipeline_job_id"="{job}" OR resource.labels.pipeline_job_id="{job}"'
        yield f"All output: gcloud logging read '{query}' --project {project} --order asc"

    def _run(self, run: str) -> Any:
        _parts(run)
        try:
            with _calls():
                return aiplatform.PipelineJob.get(run).gca_resource
        except UserError as error:
            if isinstance(error.__cause__, NotFound):
                raise UserError(f"Vertex AI knows no run {run}: {error.__cause__.message}") from error
            raise


def _state(resource: Any) -> RunState:
    """Return a run as Vertex describes it."""
    return RunState(
        plain_state(resource.state.name),
        in_order({task.task_name: _task(task) for task in resource.job_detail.task_details}),
        name=resource.display_name,
        begun=resource.create_time,
        ended=resource.end_time,
        error=resource.error.message,
    )


def _task(task: Any) -> Task:
    """Return a stage as Vertex describes it; there, one that came from the cache was skipped."""
    state = plain_state(task.state.name)
    return Task(
        "succeeded" if state == "skipped" else state,
        task.start_time,
        task.end_time,
        attempts=sum(status.state.name == "RUNNING" for status in task.pipeline_task_status),
        cached=state == "skipped",
        reason=tuple(task.error.message.splitlines()),
    )


def _parts(run: str) -> tuple[str, str, str]:
    """Return project, region and job of a run's name.

    Raises:
        UserError: It is no name of a run.
    """
    match = re.fullmatch(r"projects/([^/]+)/locations/([^/]+)/pipelineJobs/([^/]+)", run)
    if match is None:
        raise UserError(f"RUN {run!r}: a run of Vertex AI is called projects/PROJECT/locations/REGION/pipelineJobs/ID")
    return match[1], match[2], match[3]


@contextlib.contextmanager
def _calls() -> Iterator[Any]:
    """Word the client's failures for the user."""
    try:
        yield
    except GoogleAuthError as error:
        raise UserError(f"Google Cloud: {error}; write: gcloud auth application-default login") from error
    except (ServiceUnavailable, RetryError, OSError) as error:
        reason = str(error).rpartition(": ")[2]
        raise ServiceUnreachable(f"Vertex AI cannot be reached: {reason}; check network and platform.vertex") from error
    except GoogleAPICallError as error:
        raise UserError(f"Vertex AI: {error.message}") from error
