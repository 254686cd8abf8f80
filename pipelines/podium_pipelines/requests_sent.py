"""What is sent to a service beside the pipeline: the clients send it, `submit --dry-run` shows it.

The clients themselves are not imported here: Google's takes seconds.
"""

import datetime
from typing import Any

import yaml

from podium.config import KubeflowConfig, PlatformConfig, VertexConfig
from podium.version import __version__

LABEL = "podium"
_DEFAULT_HOST = "the address that KF_PIPELINES_ENDPOINT or the kubeconfig names"


def kubeflow_run(settings: KubeflowConfig, name: str) -> dict[str, Any]:
    """Return the arguments of kfp.Client.create_run_from_pipeline_package."""
    return {
        "run_name": name,
        "experiment_name": settings.experiment,
        "pipeline_root": settings.storage,
        "service_account": settings.service_account,
    }


def vertex_job(settings: VertexConfig, name: str) -> dict[str, Any]:
    """Return the arguments of aiplatform.PipelineJob."""
    return {
        "display_name": name,
        "job_id": f"{name}-{datetime.datetime.now(datetime.UTC):%f}",
        "pipeline_root": settings.staging_bucket,
        "encryption_spec_key_name": settings.encryption_key,
        # Label values hold no dots.
        "labels": {LABEL: __version__.replace(".", "-")},
    }


def vertex_start(settings: VertexConfig) -> dict[str, Any]:
    """Return the arguments of aiplatform.PipelineJob.submit."""
    return {"service_account": settings.service_account, "network": settings.network}


def shown(platform: PlatformConfig, target: str, name: str, spec: str) -> str:
    """Return a request and its pipeline as a YAML stream; what is left to the service's defaults is left out."""
    if target == "vertex":
        vertex = platform.vertex
        where = {"project": vertex.project, "region": vertex.region, "api_endpoint": vertex.api_endpoint}
        sent = {**vertex_job(vertex, name), **vertex_start(vertex)}
    else:
        kubeflow = platform.kubeflow
        where = {"host": kubeflow.host or _DEFAULT_HOST, "namespace": kubeflow.namespace}
        sent = kubeflow_run(kubeflow, name)
    request = {key: value for key, value in {"target": target, **where, **sent}.items() if value is not None}
    return f"{yaml.safe_dump(request, sort_keys=False)}---\n{spec}"
