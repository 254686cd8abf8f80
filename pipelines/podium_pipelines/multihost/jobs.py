"""Jobs of several pods as their cluster has them: made or found again, watched, read, deleted."""

import contextlib
import datetime
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import urllib3
from kubernetes import client
from kubernetes.client import ApiException

from podium.errors import UserError
from podium_pipelines.api_errors import reason_of
from podium_pipelines.multihost.names import JOBSET, LAST_S, TRAINER
from podium_pipelines.multihost.workload import CONTAINER

_PLURALS = {"TrainJob": (*TRAINER, "trainjobs"), "JobSet": (*JOBSET, "jobsets")}
# Names of a condition that says a job is done, in TrainJob and JobSet.
_DONE, _FAILED = {"Complete", "Completed"}, {"Failed"}
_JOB_OF = "jobset.sigs.k8s.io/jobset-name"
_INDEXES = ("jobset.sigs.k8s.io/job-index", "batch.kubernetes.io/job-completion-index")
# Reasons of a container that waits, which no more waiting mends.
_NO_IMAGE = {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"}

_MOST_HOSTS = 10**6
# Seconds that clocks of the cluster may be apart from ours.
_SLACK_S = 60


@dataclass(frozen=True)
class Pod:
    """One host's pod.

    Attributes:
        name: Of the pod.
        index: Orders the hosts, from 0, slice by slice.
        place: Which host it is, in words.
        started: Whether its container has run.
        exit_code: Of its container; None while it runs or waits.
        waits_for: Why it does not run yet, in the cluster's words; "" where it does.
        no_image: Whether its image cannot be had.
        out_of_memory: Whether the kernel ended it for want of memory.
    """

    name: str
    index: int
    place: str
    started: bool
    exit_code: int | None
    waits_for: str
    no_image: bool
    out_of_memory: bool


@dataclass(frozen=True)
class JobState:
    """How far a job is: state is active, complete or failed; message is why, in the cluster's words."""

    state: str
    message: str
    owner: str


class Jobs:
    """The jobs of one kind (TrainJob or JobSet) in a namespace."""

    def __init__(self, namespace: str, kind: str) -> None:
        self.namespace = namespace
        self.kind = kind
        self._custom = client.CustomObjectsApi()
        self._core = client.CoreV1Api()

    def create(self, job: Mapping[str, Any]) -> None:
        """Make a job; a field that the cluster does not know is refused.

        Raises:
            UserError: The cluster refuses it, or cannot be reached.
        """
        group, version, plural = _PLURALS[self.kind]
        with _said(f"{self.kind} {job['metadata']['name']}"):
            self._custom.create_namespaced_custom_object(
                group, version, self.namespace, plural, dict(job), field_validation="Strict"
            )

    def find(self, name: str) -> JobState | None:
        """Return a job's state, None where there is none."""
        group, version, plural = _PLURALS[self.kind]
        try:
            with _said(f"{self.kind} {name}"):
                found = self._custom.get_namespaced_custom_object(group, version, self.namespace, plural, name)
        except Missing:
            return None
        owners = found["metadata"].get("ownerReferences") or [{}]
        for condition in found.get("status", {}).get("conditions", ()):
            if condition["status"] == "True" and condition["type"] in _DONE | _FAILED:
                state = "complete" if condition["type"] in _DONE else "failed"
                return JobState(state, condition.get("message", ""), owners[0].get("uid", ""))
        return JobState("active", "", owners[0].get("uid", ""))

    def cancel(self, name: str) -> None:
        """Delete a job, and let its pods end within seconds: what they would still save is of no use."""
        self.delete(name)
        with _said(f"pods of {name}"):
            self._core.delete_collection_namespaced_pod(
                self.namespace, label_selector=f"{_JOB_OF}={name}", grace_period_seconds=LAST_S
            )

    def delete(self, name: str) -> None:
        """Delete a job with its pods, if it is there; each of them has the time to save its last step."""
        group, version, plural = _PLURALS[self.kind]
        try:
            with _said(f"{self.kind} {name}"):
                self._custom.delete_namespaced_custom_object(
                    group, version, self.namespace, plural, name, propagation_policy="Foreground"
                )
        except Missing:
            return

    def pods(self, name: str) -> Sequence[Pod]:
        """Return a job's pods by their place; of a place with several, the newest comes last."""
        with _said(f"pods of {name}"):
            found = self._core.list_namespaced_pod(self.namespace, label_selector=f"{_JOB_OF}={name}").items
        found.sort(key=lambda pod: pod.metadata.creation_timestamp)
        return sorted((_pod(one) for one in found), key=lambda pod: pod.index)

    def log(self, pod: str, after: int = 0) -> Iterator[tuple[int, str]]:
        """Yield the lines of a pod's log with their times in nanoseconds, those later than `after`."""
        since = {"since_seconds": max(int(time.time() - after / 10**9), 0) + _SLACK_S} if after else {}
        try:
            with _said(f"log of {pod}"):
                text = self._core.read_namespaced_pod_log(
                    pod, self.namespace, container=CONTAINER, timestamps=True, **since
                )
        except Missing:
            return
        for line in text.splitlines():
            stamp, _, said = line.partition(" ")
            if (at := _nanoseconds(stamp)) > after:
                yield at, said


class Missing(UserError):
    """What was asked for is not there."""


class Unreachable(UserError):
    """The cluster does not answer, or is not itself: another look may find it again."""


@contextlib.contextmanager
def _said(what: str) -> Iterator[None]:
    """Word what the client raises for the user; `what` is what was asked for."""
    try:
        yield
    except ApiException as error:
        if error.status == 404:
            raise Missing(f"{what}: the cluster has none, or not its kind") from error
        busy = error.status == 429 or error.status >= 500
        raise (Unreachable if busy else UserError)(f"{what}: {reason_of(error)}") from error
    except urllib3.exceptions.HTTPError as error:
        raise Unreachable(f"{what}: the API of the cluster cannot be reached ({error})") from error


def _pod(found: Any) -> Pod:
    labels = {**(found.metadata.annotations or {}), **(found.metadata.labels or {})}
    number, host = (int(labels.get(name, 0)) for name in _INDEXES)
    containers = found.status.container_statuses or ()
    state = next((one.state for one in containers if one.name == CONTAINER), None)
    ended = state.terminated if state else None
    waits = state.waiting if state else None
    return Pod(
        name=found.metadata.name,
        # Slices are of one size, so that any count larger than their hosts orders them.
        index=number * _MOST_HOSTS + host,
        place=f"host {host} of slice {number}" if number else f"host {host}",
        started=bool(ended or (state and state.running)),
        exit_code=ended.exit_code if ended else None,
        waits_for=f"{waits.reason}: {waits.message or ''}".rstrip(": ") if waits else _unscheduled(found),
        no_image=bool(waits and waits.reason in _NO_IMAGE),
        out_of_memory=bool(ended and ended.reason == "OOMKilled"),
    )


def _unscheduled(found: Any) -> str:
    """Return the scheduler's words where it found no node."""
    for condition in found.status.conditions or ():
        if (condition.type, condition.status) == ("PodScheduled", "False"):
            return f"{condition.reason}: {condition.message}"
    return ""


def _nanoseconds(stamp: str) -> int:
    """Read a time as Kubernetes writes it, which has up to nine digits behind the point."""
    whole, _, rest = stamp.rstrip("Z").partition(".")
    seconds = datetime.datetime.fromisoformat(f"{whole}+00:00").timestamp()
    return int(seconds) * 10**9 + int(rest.ljust(9, "0") or 0)
