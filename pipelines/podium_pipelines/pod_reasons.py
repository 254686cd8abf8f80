"""Why a stage on Kubeflow failed or does not start: the service says nothing of it, its pods do."""

import contextlib
from collections.abc import Sequence
from dataclasses import replace

from podium_pipelines.cluster import Cluster, ClusterRefused
from podium_pipelines.pods import StagePod, stage_pods
from podium_pipelines.remote import RunState, Task
from podium_pipelines.stage_output import why
from podium_pipelines.workflow_messages import by_stage

# Enough for a stack trace between what the launcher writes behind it.
_LAST_LINES = 400


def with_pods(state: RunState, cluster: Cluster, namespace: str, run: str) -> RunState:
    """Return a run with what the pods of its stages say.

    Raises:
        ClusterRefused: They cannot be read.
    """
    pods: dict[str, list[StagePod]] = {}
    for pod in stage_pods(cluster.pods(namespace, run)):
        pods.setdefault(pod.stage, []).append(pod)
    tasks = {stage: _with_pods(task, pods.get(stage, ()), cluster, namespace) for stage, task in state.stages.items()}
    silent = [stage for stage, task in tasks.items() if task.state in ("running", "failed") and stage not in pods]
    # To read workflows is a right of its own: without it, a stage without a pod keeps its reason to itself.
    with contextlib.suppress(ClusterRefused):
        said = by_stage(cluster.workflows(namespace, run)) if silent else {}
        tasks |= {stage: _without_pod(tasks[stage], said[stage]) for stage in silent if stage in said}
    return replace(state, stages=tasks)


def _without_pod(task: Task, message: str) -> Task:
    return replace(task, state="pending" if task.state == "running" else task.state, reason=(message,))


def _with_pods(task: Task, pods: Sequence[StagePod], cluster: Cluster, namespace: str) -> Task:
    if not pods:
        return task
    own = [pod for pod in pods if not pod.driver]
    task = replace(task, attempts=len(own), cached=task.cached and not own)
    # Without a pod of its own, the driver before it failed or waits.
    last = (own or pods)[-1]
    if task.state == "failed":
        return replace(task, reason=_why_failed(last, cluster, namespace))
    if not task.finished and last.pending:
        reason = (last.trouble.text,) if last.trouble else tuple(cluster.warnings(namespace, last.name)[-1:])
        return replace(task, state="pending", reason=reason, stuck=last.trouble is not None and last.trouble.stuck)
    return task


def _why_failed(pod: StagePod, cluster: Cluster, namespace: str) -> tuple[str, ...]:
    trouble = (pod.trouble.text,) if pod.trouble else ()
    said = why(cluster.log(namespace, pod.name, last=_LAST_LINES)) if pod.started else ()
    return (*trouble, *said)
