"""The stages of a Kubeflow run, from the nodes of its workflow that the service lists.

A stage `x` is the node x, made of x-driver, which looks into the cache, and one called executor, or executor(0),
executor(1), ... The service does not tell which executor belongs to which stage.
"""

import datetime
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from podium.config import STAGES
from podium_pipelines.remote import FINISHED, RunState, Task, in_order, plain_state

# The year of a time that is not set.
_NEVER = 1
_EXECUTOR = "executor"


def run_state(found: Any) -> RunState:
    """Return a run as the service describes it.

    A cancelled run ends as failed there: that it was cancelled is in its history alone.
    """
    state = plain_state(found.state)
    history = {plain_state(entry.state) for entry in found.state_history or ()}
    if state == "failed" and "canceling" in history:
        state = "canceled"
    nodes = (found.run_details.task_details if found.run_details else None) or ()
    return RunState(
        state,
        _tasks(nodes, _spec_stages(found.pipeline_spec), state),
        name=found.display_name or "",
        begun=_time(found.created_at),
        ended=_time(found.finished_at),
        error=(found.error.message or "") if found.error else "",
    )


def _spec_stages(spec: Mapping[str, Any] | None) -> Iterable[str]:
    """Return the tasks of a pipeline; two documents, where there are platform settings, are under two keys."""
    whole = spec or {}
    return whole.get("pipeline_spec", whole).get("root", {}).get("dag", {}).get("tasks", {})  # type: ignore[no-any-return]


def _tasks(nodes: Sequence[Any], expected: Iterable[str], run: str) -> dict[str, Task]:
    executors = [node for node in nodes if (node.display_name or "").partition("(")[0] == _EXECUTOR]
    result = {stage: Task("skipped" if run in FINISHED else "pending") for stage in expected}
    for node in nodes:
        if node.display_name in STAGES:
            result[node.display_name] = _task(node, executors, run)
    return in_order(result)


def _task(node: Any, executors: Sequence[Any], run: str) -> Task:
    state, begun, ended = plain_state(node.state), _time(node.start_time), _time(node.end_time)
    if run in FINISHED and state not in FINISHED:
        # What was left out because an earlier one failed has no state.
        return Task("skipped")
    if run == "canceled" and state == "failed":
        state = "canceled"
    return Task(state, begun, ended, cached=state == "succeeded" and _is_cached(node, executors))


def _is_cached(node: Any, executors: Sequence[Any]) -> bool:
    """Tell whether a stage's executor was skipped: one was in the stage's time, and none ran within it."""
    begin, end = _time(node.start_time), _time(node.end_time)
    if begin is None or end is None:
        return False
    timed = [one for one in executors if _time(one.start_time) and _time(one.end_time)]
    inside = [one for one in timed if begin <= one.start_time and one.end_time <= end]
    states = {plain_state(one.state) for one in inside}
    return "skipped" in states and "succeeded" not in states


def _time(time: datetime.datetime | None) -> datetime.datetime | None:
    return None if time is None or time.year == _NEVER else time
