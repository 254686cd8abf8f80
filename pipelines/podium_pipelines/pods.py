"""The pods of a run: which stage each is for, and what is wrong with it, which the service itself does not say."""

import datetime
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from podium.config import STAGES

# What Kubernetes says of a container that it cannot start. A first failure to pull (ErrImagePull) is tried again.
_NO_IMAGE = frozenset({"ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"})
_NO_START = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError", "CrashLoopBackOff"})
_TRIED_AGAIN = frozenset({"ErrImagePull"})
# Time in which a pool of nodes grows, or another job ends.
_PATIENCE = datetime.timedelta(minutes=10)


@dataclass(frozen=True)
class Trouble:
    """What is wrong with a pod; `stuck`: it does not mend by itself."""

    text: str
    stuck: bool = False


@dataclass(frozen=True)
class StagePod:
    """A pod of a stage: the stage itself, or the driver that goes before it.

    Attributes:
        stage: The stage.
        name: The pod's name.
        driver: It prepares the stage.
        started: Its main container has run, so that there is a log.
        pending: It waits for its start.
        failed: It ended with an error.
        trouble: What is wrong with it.
    """

    stage: str
    name: str
    driver: bool
    started: bool
    pending: bool
    failed: bool
    trouble: Trouble | None


def stage_pods(pods: Iterable[Any]) -> list[StagePod]:
    """Return the pods of the stages, in the order given."""
    return [_described(pod, stage, driver) for pod in pods for stage, driver in [_purpose(pod)] if stage]


def _purpose(pod: Any) -> tuple[str, bool]:
    """Return the stage that a pod is for, or "", and whether it is the driver: a stage's command names it.

    Of a stage on several hosts it is the pod that starts and follows these, podium launch STAGE.
    """
    for container in pod.spec.containers:
        words = [*(container.command or ()), *(container.args or ())]
        for before, word in itertools.pairwise(words):
            if before in ("podium", "launch", "--task_name") and word in STAGES:
                return word, before == "--task_name"
    return "", False


def _described(pod: Any, stage: str, driver: bool) -> StagePod:
    main = next((one.state for one in pod.status.container_statuses or () if one.name == "main"), None)
    return StagePod(
        stage,
        pod.metadata.name,
        driver,
        started=main is not None and bool(main.running or main.terminated),
        pending=pod.status.phase == "Pending",
        failed=pod.status.phase == "Failed",
        trouble=next(_troubles(pod, stage), None),
    )


def _troubles(pod: Any, stage: str) -> Iterator[Trouble]:
    """Yield what is wrong with a pod, the cause before its consequences."""
    status, resources = pod.status, f"platform.resources.{stage}"
    for one in status.conditions or ():
        if one.type == "DisruptionTarget" and one.status == "True":
            yield Trouble(f"{one.reason}: {one.message}")
    if status.reason == "Evicted":
        yield Trouble(f"Evicted: {status.message}")
    for container in [*(status.init_container_statuses or ()), *(status.container_statuses or ())]:
        yield from _of_container(container, pod, resources)
    for one in status.conditions or ():
        if one.type == "PodScheduled" and one.reason == "Unschedulable":
            waited = datetime.datetime.now(datetime.UTC) - pod.metadata.creation_timestamp
            yield Trouble(f"Unschedulable: {one.message}; see {resources}", stuck=waited > _PATIENCE)


def _of_container(container: Any, pod: Any, resources: str) -> Iterator[Trouble]:
    terminated, waiting = (container.state.terminated, container.state.waiting) if container.state else (None, None)
    if terminated and terminated.reason == "OOMKilled":
        yield Trouble(f"OOMKilled: {_limit(pod, container.name)}; raise {resources}.memory")
    if not waiting:
        return
    text = f"{waiting.reason}: {waiting.message or container.image}"
    if waiting.reason in _NO_IMAGE:
        yield Trouble(f"{text}; name an image that the cluster can pull in platform.image", stuck=True)
    elif waiting.reason in _NO_START | _TRIED_AGAIN:
        yield Trouble(text, stuck=waiting.reason in _NO_START)


def _limit(pod: Any, container: str) -> str:
    limits = next(
        (one.resources.limits for one in pod.spec.containers if one.name == container and one.resources), None
    )
    memory = (limits or {}).get("memory")
    return f"it needed more than its limit of {memory}" if memory else "the node had no more memory"
