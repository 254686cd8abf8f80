"""Runs on a cluster: what their two clients have in common, and how to follow a run."""

import datetime
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from podium.config import STAGES, PlatformConfig
from podium.errors import ExitCode, UserError
from podium_pipelines.arguments import require

if TYPE_CHECKING:
    from podium_pipelines.preflight import Finding

# Of the pipeline, and so of the folder that holds its runs' artifacts.
NAME = "rlhf"
FINISHED = frozenset({"succeeded", "failed", "canceled", "skipped", "error"})
# How the gates say it themselves, and how services name their exit code.
_MISSED = re.compile(r"gates failed|\bstatus(?: of)? 3\b|\bexit code:? 3\b")


class ServiceUnreachable(UserError):
    """A service that did not answer this time."""


@dataclass(frozen=True)
class Task:
    """One stage of a run; states are lower-case words such as running or succeeded.

    Attributes:
        state: How far it is.
        begun: When it began, where that is known.
        ended: When it ended.
        attempts: How many times it was started; 0 where that is not known.
        cached: Its results are an earlier run's.
        reason: Why it failed or does not start, in lines.
        stuck: It cannot start until somebody mends something.
    """

    state: str
    begun: datetime.datetime | None = None
    ended: datetime.datetime | None = None
    attempts: int = 0
    cached: bool = False
    reason: tuple[str, ...] = ()
    stuck: bool = False

    @property
    def finished(self) -> bool:
        """Tell whether it has ended, well or not."""
        return self.state in FINISHED


@dataclass(frozen=True)
class RunState:
    """A run as its service sees it, with its stages in the pipeline's order.

    `error` is what the service says of a failure, `note` what could not be looked at.
    """

    state: str
    stages: Mapping[str, Task]
    name: str = ""
    begun: datetime.datetime | None = None
    ended: datetime.datetime | None = None
    error: str = ""
    note: str = ""

    @property
    def finished(self) -> bool:
        """Tell whether the run has ended, well or not."""
        return self.state in FINISHED

    @property
    def exit_code(self) -> ExitCode:
        """Return how a command that shows the run ends: 0 while it runs, then as `podium run` would have."""
        if not self.finished or self.state in ("succeeded", "skipped"):
            return ExitCode.DONE
        gates = self.stages.get("gates")
        missed = gates is not None and gates.state == "failed" and _missed_gates(gates)
        return ExitCode.GATES_FAILED if missed and self.state == "failed" else ExitCode.FAULT


def _missed_gates(gates: Task) -> bool:
    """Tell whether the task `gates` failed because of the gates, which is likely where nobody says why."""
    return not gates.reason or any(_MISSED.search(line) for line in gates.reason)


class Remote(Protocol):
    """A service that runs compiled pipelines."""

    def preflight(self, name: str) -> Iterator["Finding"]:
        """Yield what is known of a run of this name before it is submitted.

        Raises:
            UserError: The service refuses this user or its settings.
        """

    def submit(self, spec: Path, name: str) -> str:
        """Start a run and return what the service calls it."""

    def address(self, run: str) -> str:
        """Return the address of a run's page."""

    def state(self, run: str) -> RunState:
        """Return how far a run is."""

    def runs(self, limit: int) -> list[tuple[str, RunState]]:
        """Return the newest runs that podium submitted, with what `state` takes, newest first."""

    def artifacts(self, run: str) -> Mapping[str, Mapping[str, str]]:
        """Return the URIs of the artifacts that a run has made, by stage and output."""

    def cancel(self, run: str) -> None:
        """Ask the service to stop a run."""

    def logs(self, run: str, wanted: "Wanted") -> Iterator[str]:
        """Yield what a run's stages printed, line by line, each stage after a line with its name."""


@dataclass(frozen=True)
class Wanted:
    """Which lines of a run are asked for: of one stage or of each, with others' lines too, as they come."""

    stage: str | None = None
    everything: bool = False
    follow: bool = False


def run_name() -> str:
    """Return a name for a run that is submitted now."""
    return f"{NAME}-{datetime.datetime.now(datetime.UTC):%Y%m%d-%H%M%S}"


def connect(platform: PlatformConfig, target: str) -> Remote:
    """Return the client of a target.

    Raises:
        UserError: The service cannot be reached, or its client is not installed.
    """
    if target == "vertex":
        vertex: Remote = require("podium_pipelines.vertex").Vertex(platform.vertex)
        return vertex
    kubeflow: Remote = require("podium_pipelines.kubeflow").Kubeflow(platform.kubeflow)
    return kubeflow


def target_of(run: str) -> str:
    """Tell from its name where a run is: Vertex names hold the project, Kubeflow's are bare identifiers."""
    return "vertex" if run.startswith("projects/") else "kubeflow"


def in_order(tasks: Mapping[str, Task]) -> dict[str, Task]:
    """Return the stages among the tasks of a run, in the pipeline's order."""
    return {stage: tasks[stage] for stage in STAGES if stage in tasks}


def plain_state(name: str | None) -> str:
    """Turn a service's word for a state (PIPELINE_STATE_CANCELLED, CANCELED, None) into ours."""
    word = (name or "pending").removeprefix("PIPELINE_STATE_").lower().replace("cancelled", "canceled")
    return "pending" if word.endswith("unspecified") else word


def refuse_local(paths: list[str], target: str) -> None:
    """Stop before a run that must fail: its tasks cannot read files of this machine.

    Raises:
        UserError: There are such files.
    """
    if paths:
        bucket = "gs://" if target == "vertex" else "s3:// or gs://"
        raise UserError(f"{paths[0]} is on this machine only, where {target} cannot read it; copy it to a {bucket} URI")
