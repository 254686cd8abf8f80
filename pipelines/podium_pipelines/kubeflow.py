"""Runs on Kubeflow Pipelines, through its own client."""

import contextlib
import io
import itertools
import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kfp
import kfp_server_api
import urllib3

from podium.config import STAGES, KubeflowConfig
from podium.errors import UserError
from podium_pipelines.remote import RunState, plain_state

_SINGLE_USER = "kubeflow"


class Kubeflow:
    """A Kubeflow Pipelines server."""

    def __init__(self, settings: KubeflowConfig) -> None:
        self._settings = settings
        with self._calls(), warnings.catch_warnings(action="ignore"):
            self._client = kfp.Client(host=settings.host, namespace=settings.namespace)

    def submit(self, spec: Path, name: str) -> str:
        """Start a run in the configured experiment and return its id."""
        # In single-user mode the server refuses a request that names a namespace; kfp.Client draws the line here too.
        namespace = None if self._settings.namespace == _SINGLE_USER else self._settings.namespace
        with self._calls():
            run = self._client.create_run_from_pipeline_package(
                str(spec),
                run_name=name,
                experiment_name=self._settings.experiment,
                namespace=namespace,
                pipeline_root=self._settings.storage,
                service_account=self._settings.service_account,
            )
        return str(run.run_id)

    def address(self, run: str) -> str:
        """Return the address of a run's page."""
        return f"{(self._settings.host or 'KUBEFLOW').rstrip('/')}/#/runs/details/{run}"

    def state(self, run: str) -> RunState:
        """Return how far a run is."""
        with self._calls():
            found = self._client.get_run(run)
        details = found.run_details.task_details if found.run_details else None
        stages = {task.display_name: plain_state(task.state) for task in details or ()}
        return RunState(plain_state(found.state), stages, (found.error.message or "") if found.error else "")

    def cancel(self, run: str) -> None:
        """Ask the server to stop a run."""
        with self._calls():
            self._client.terminate_run(run)

    def logs(self, run: str) -> Iterator[str]:
        """Yield what a run's pods printed; it asks Kubernetes, with the kubeconfig that kubectl uses."""
        core = _kubernetes()
        namespace = self._settings.namespace
        pods = core.list_namespaced_pod(namespace, label_selector=f"pipeline/runid={run}").items
        for pod in sorted(pods, key=lambda pod: str(pod.metadata.creation_timestamp)):
            stage = _stage_of(pod)
            if stage:
                yield f"== {stage}"
                yield from core.read_namespaced_pod_log(pod.metadata.name, namespace, container="main").splitlines()

    @contextlib.contextmanager
    def _calls(self) -> Iterator[None]:
        """Keep the client's own prints back and word its failures for the user."""
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                yield
        except kfp_server_api.ApiException as error:
            raise UserError(f"Kubeflow Pipelines: {_reason(error)}") from error
        except urllib3.exceptions.HTTPError as error:
            raise UserError(
                f"Kubeflow Pipelines cannot be reached at {self._settings.host or 'the address of kfp.Client'}; "
                "write its address in platform.kubeflow.host"
            ) from error


def _reason(error: Any) -> str:
    """Return the message in an API error's body, or its HTTP status."""
    try:
        return str(json.loads(error.body)["error"])
    except (TypeError, ValueError, KeyError):
        return f"{error.status} {error.reason}"


def _stage_of(pod: Any) -> str:
    """Return the stage that a pod runs, or "" for KFP's own pods: only a stage's command names it."""
    for container in pod.spec.containers:
        words = [*(container.command or ()), *(container.args or ())]
        for before, word in itertools.pairwise(words):
            if before == "podium" and word in STAGES:
                return str(word)
    return ""


def _kubernetes() -> Any:
    """Return a Kubernetes client, configured as kubectl is, or as a pod."""
    from kubernetes import client, config

    try:
        config.load_kube_config()
    except config.ConfigException:
        try:
            config.load_incluster_config()
        except config.ConfigException as error:
            raise UserError("logs are read from the cluster, and no kubeconfig was found; set KUBECONFIG") from error
    return client.CoreV1Api()
