"""Runs on Kubeflow Pipelines, through its own client."""

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import kfp
import kfp_server_api

from podium.config import KubeflowConfig
from podium.errors import UserError
from podium_pipelines.cluster import Cluster, ClusterRefused
from podium_pipelines.collect import artifacts_below
from podium_pipelines.kubeflow_service import calls, client_of
from podium_pipelines.kubeflow_tasks import run_state
from podium_pipelines.pod_logs import PodLogs
from podium_pipelines.pod_reasons import with_pods
from podium_pipelines.preflight import Finding, of_cluster, of_storage, of_version
from podium_pipelines.remote import NAME, RunState, Wanted
from podium_pipelines.requests_sent import kubeflow_run

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

    def preflight(self, name: str) -> Iterator[Finding]:
        """Yield what version, bucket and cluster say of a run before it is submitted."""
        yield from of_version(self._place, self._client.version, kfp.__version__)
        yield from of_storage("platform.kubeflow.storage", self._settings.storage, name)
        yield from of_cluster(self._settings)

    def submit(self, spec: Path, name: str) -> str:
        """Start a run in the configured experiment and return its id."""
        with calls(self._place):
            run = self._client.create_run_from_pipeline_package(
                str(spec),
                **kubeflow_run(self._settings, name),
            )
        return str(run.run_id)

    def address(self, run: str) -> str:
        """Return the address of a run's page."""
        return f"{(self._settings.host or 'KUBEFLOW').rstrip('/')}/#/runs/details/{run}"

    def state(self, run: str) -> RunState:
        """Return how far a run is."""
        state = run_state(self._run(run))
        if all(task.state in ("succeeded", "skipped") for task in state.stages.values()):
            return state
        try:
            return with_pods(state, Cluster(), self._settings.namespace, run)
        except ClusterRefused as error:
            return replace(state, note=f"why a stage failed or waits is not known here: {error}")

    def runs(self, limit: int) -> list[tuple[str, RunState]]:
        """Return the newest runs of the configured experiment."""
        with calls(self._place):
            try:
                experiment = self._client.get_experiment(experiment_name=self._settings.experiment)
            except ValueError:
                # Its word for an experiment that is not there yet.
                return []
            found = self._client.list_runs(
                page_size=limit, sort_by="created_at desc", experiment_id=experiment.experiment_id
            )
        return [(run.run_id, run_state(run)) for run in found.runs or ()]

    def artifacts(self, run: str) -> dict[str, dict[str, str]]:
        """Return the URIs of the artifacts that a run has made; those from the cache are in another run's folder."""
        storage = (self._settings.storage or "").rstrip("/")
        return artifacts_below(f"{storage}/{NAME}/{run}")

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
        # The tasks that follow hosts end them too, if they can: they have less than a second. Without rights of one's
        # own they go with the run's workflow.
        with contextlib.suppress(ClusterRefused):
            Cluster().end_hosts(self._settings.namespace, self.state(run).name)

    def logs(self, run: str, wanted: Wanted) -> Iterator[str]:
        """Yield what a run's pods printed; it asks Kubernetes, with the kubeconfig that kubectl uses."""
        state = run_state(self._run(run))
        log = PodLogs(Cluster(), self._settings.namespace, run, wanted)
        if wanted.follow:
            yield from log.followed(lambda: run_state(self._run(run)).finished)
            return
        some = False
        for line in log.so_far():
            some = True
            yield line
        if not some and state.finished:
            raise UserError(
                f"no pods of {wanted.stage or run} are left in the namespace {self._settings.namespace}, with what "
                f"they printed: a cluster removes them some time after a run; {self.address(run)} may still show it"
            )

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
