"""Runs on Kubeflow Pipelines, through its own client."""

import contextlib
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kfp_server_api

from podium.config import STAGES, KubeflowConfig
from podium.errors import UserError
from podium_pipelines.cluster import Cluster, ClusterRefused
from podium_pipelines.kubeflow_service import calls, client_of
from podium_pipelines.remote import RunState, plain_state

_DEFAULT_NAMESPACE = "kubeflow"
# The service that an installation has in its own namespace.
_SERVICE = "ml-pipeline"


class Kubeflow:
    """A Kubeflow Pipelines server."""

    def __init__(self, settings: KubeflowConfig) -> None:
        self._settings = settings
        self._client = client_of(settings.host, settings.namespace)
        self._place = self._client.service.host
        self._check_namespace()

    @property
    def _namespace(self) -> str | None:
        """What requests say: a server for one user knows no namespaces, and kfp may know this user's."""
        chosen = self._client.multi_user and self._settings.namespace != _DEFAULT_NAMESPACE
        return self._settings.namespace if chosen else None

    def submit(self, spec: Path, name: str) -> str:
        """Start a run in the configured experiment and return its id."""
        with calls(self._place):
            run = self._client.create_run_from_pipeline_package(
                str(spec),
                run_name=name,
                experiment_name=self._settings.experiment,
                namespace=self._namespace,
                pipeline_root=self._settings.storage,
                service_account=self._settings.service_account,
            )
        return str(run.run_id)

    def address(self, run: str) -> str:
        """Return the address of a run's page."""
        return f"{(self._settings.host or 'KUBEFLOW').rstrip('/')}/#/runs/details/{run}"

    def state(self, run: str) -> RunState:
        """Return how far a run is."""
        found = self._run(run)
        details = found.run_details.task_details if found.run_details else None
        stages = {task.display_name: plain_state(task.state) for task in details or ()}
        return RunState(plain_state(found.state), stages, (found.error.message or "") if found.error else "")

    def cancel(self, run: str) -> None:
        """Ask the server to stop a run."""
        try:
            with calls(self._place):
                self._client.terminate_run(run)
        except UserError:
            state = self.state(run)
            if not state.finished:
                raise
            raise UserError(f"{run} has already ended, as {state.state}: there is nothing to stop") from None

    def logs(self, run: str) -> Iterator[str]:
        """Yield what a run's pods printed; it asks Kubernetes, with the kubeconfig that kubectl uses."""
        state, cluster, namespace = self.state(run), Cluster(), self._settings.namespace
        pods = [(stage, pod) for pod in cluster.pods(namespace, run) if (stage := _stage_of(pod))]
        if not pods and state.finished:
            raise UserError(
                f"no pods of {run} are left in the namespace {namespace}: they are removed some time after a run, and "
                f"what they printed with them; {self.address(run)} may still show it"
            )
        for stage, pod in pods:
            yield f"== {stage}"
            yield from cluster.log(namespace, pod.metadata.name)

    def _run(self, run: str) -> Any:
        try:
            with calls(self._place):
                return self._client.get_run(run)
        except UserError as error:
            if isinstance(error.__cause__, kfp_server_api.ApiException) and error.__cause__.status == 404:
                raise UserError(
                    f"Kubeflow Pipelines at {self._place} knows no run {run}; is it one of another service?"
                ) from error
            raise

    def _check_namespace(self) -> None:
        """Refuse a namespace that the service would pass over in silence, or none where it needs one.

        Raises:
            UserError: The namespace does not fit the service.
        """
        namespace = self._settings.namespace
        if self._client.multi_user and namespace == _DEFAULT_NAMESPACE and not self._client.get_user_namespace():
            raise UserError(
                f"platform.kubeflow.namespace is missing: Kubeflow Pipelines at {self._place} serves several users; "
                "write the namespace of your profile"
            )
        if self._client.multi_user or namespace == _DEFAULT_NAMESPACE:
            return
        with contextlib.suppress(ClusterRefused):
            # Its own one, then: where the pods are.
            if Cluster().has_service(namespace, _SERVICE):
                return
        raise UserError(
            f"platform.kubeflow.namespace is {namespace}, and Kubeflow Pipelines at {self._place} serves one user: "
            "runs are in its own namespace; leave namespace out, or name the one that it is installed in, and let "
            "podium look there (KUBECONFIG)"
        )


def _stage_of(pod: Any) -> str:
    """Return the stage that a pod runs, or "" for KFP's own pods: only a stage's command names it."""
    for container in pod.spec.containers:
        words = [*(container.command or ()), *(container.args or ())]
        for before, word in itertools.pairwise(words):
            if before == "podium" and word in STAGES:
                return str(word)
    return ""
