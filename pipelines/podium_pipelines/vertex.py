"""Runs on Vertex AI Pipelines, through Google's own client."""

import contextlib
import datetime
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from google.api_core.exceptions import GoogleAPICallError
from google.auth.exceptions import GoogleAuthError
from google.cloud import aiplatform

from podium.config import STAGES, VertexConfig
from podium.errors import UserError
from podium.version import __version__
from podium_pipelines.remote import RunState, plain_state


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

    def submit(self, spec: Path, name: str) -> str:
        """Start a run and return its resource name."""
        if self._settings.staging_bucket is None:
            raise UserError(
                "platform.vertex.staging_bucket is missing: runs keep their artifacts there; write gs://BUCKET"
            )
        with _calls():
            job = aiplatform.PipelineJob(
                display_name=name,
                template_path=str(spec),
                job_id=f"{name}-{datetime.datetime.now(datetime.UTC):%f}",
                pipeline_root=self._settings.staging_bucket,
                encryption_spec_key_name=self._settings.encryption_key,
                # Label values hold no dots.
                labels={"podium": __version__.replace(".", "-")},
            )
            job.submit(service_account=self._settings.service_account, network=self._settings.network)
        return str(job.resource_name)

    def address(self, run: str) -> str:
        """Return the address of a run's page."""
        _, project, _, region, _, job = run.split("/")
        return f"https://console.cloud.google.com/vertex-ai/locations/{region}/pipelines/runs/{job}?project={project}"

    def state(self, run: str) -> RunState:
        """Return how far a run is."""
        with _calls():
            job = aiplatform.PipelineJob.get(run)
            resource = job.gca_resource
        stages = {task.task_name: plain_state(task.state.name) for task in resource.job_detail.task_details}
        return RunState(plain_state(resource.state.name), stages, resource.error.message)

    def cancel(self, run: str) -> None:
        """Ask the service to stop a run."""
        with _calls():
            aiplatform.PipelineJob.get(run).cancel()

    def logs(self, run: str) -> Iterator[str]:
        """Yield why stages failed, and the command that shows everything: output itself is in Cloud Logging."""
        with _calls():
            details = aiplatform.PipelineJob.get(run).gca_resource.job_detail.task_details
        for task in details:
            if task.task_name in STAGES and task.error.message:
                yield f"== {task.task_name}"
                yield from task.error.message.splitlines()
        _, project, _, _, _, job = run.split("/")
        query = f'labels."ml.googleapis.com/pipeline_job_id"="{job}" OR resource.labels.pipeline_job_id="{job}"'
        yield f"All output: gcloud logging read '{query}' --project {project} --order asc"


@contextlib.contextmanager
def _calls() -> Iterator[Any]:
    """Word the client's failures for the user."""
    try:
        yield
    except GoogleAuthError as error:
        raise UserError(f"Google Cloud: {error}; write: gcloud auth application-default login") from error
    except GoogleAPICallError as error:
        raise UserError(f"Vertex AI: {error.message}") from error
