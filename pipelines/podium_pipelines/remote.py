"""Runs on a cluster: what their two clients have in common, and how to follow a run."""

import datetime
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from podium.config import STAGES, PodiumConfig
from podium.errors import UserError
from podium_pipelines.arguments import require

FINISHED = frozenset({"succeeded", "failed", "canceled", "skipped", "error"})


class ServiceUnreachable(UserError):
    """A service that did not answer this time."""


@dataclass(frozen=True)
class RunState:
    """A run as its service sees it; states are lower-case words such as running or succeeded.

    `stages` also holds the tasks that the service added; `ordered` leaves them out.
    """

    state: str
    stages: Mapping[str, str]
    error: str = ""

    @property
    def finished(self) -> bool:
        """Tell whether the run has ended, well or not."""
        return self.state in FINISHED


class Remote(Protocol):
    """A service that runs compiled pipelines."""

    def submit(self, spec: Path, name: str) -> str:
        """Start a run and return what the service calls it."""

    def address(self, run: str) -> str:
        """Return the address of a run's page."""

    def state(self, run: str) -> RunState:
        """Return how far a run is."""

    def cancel(self, run: str) -> None:
        """Ask the service to stop a run."""

    def logs(self, run: str) -> Iterator[str]:
        """Yield what a run's stages printed, line by line, each stage after a line with its name."""


def run_name() -> str:
    """Return a name for a run that is submitted now."""
    return f"rlhf-{datetime.datetime.now(datetime.UTC):%Y%m%d-%H%M%S}"


def connect(config: PodiumConfig, target: str) -> Remote:
    """Return the client of a target.

    Raises:
        UserError: The service cannot be reached, or its client is not installed.
    """
    if target == "vertex":
        vertex: Remote = require("podium_pipelines.vertex").Vertex(config.platform.vertex)
        return vertex
    kubeflow: Remote = require("podium_pipelines.kubeflow").Kubeflow(config.platform.kubeflow)
    return kubeflow


def target_of(run: str) -> str:
    """Tell from its name where a run is: Vertex names hold the project, Kubeflow's are bare identifiers."""
    return "vertex" if run.startswith("projects/") else "kubeflow"


def follow(remote: Remote, run: str, say: Callable[[str], None], *, poll_s: float = 10.0) -> RunState:
    """Say every change of a run's stages until it ends, and return its last state."""
    known: dict[str, str] = {}
    while True:
        now = remote.state(run)
        for stage in ordered(now.stages):
            if known.get(stage) != now.stages[stage]:
                known[stage] = now.stages[stage]
                say(f"{stage:<9} {known[stage]}")
        if now.finished:
            return now
        time.sleep(poll_s)


def ordered(stages: Mapping[str, str]) -> list[str]:
    """Return the stages that a run knows of, in the pipeline's order."""
    return [stage for stage in STAGES if stage in stages]


def plain_state(name: str | None) -> str:
    """Turn a service's word for a state (PIPELINE_STATE_CANCELLED, CANCELED, None) into ours."""
    return (name or "pending").removeprefix("PIPELINE_STATE_").lower().replace("cancelled", "canceled")


def refuse_local(paths: list[str], target: str) -> None:
    """Stop before a run that must fail: its tasks cannot read files of this machine.

    Raises:
        UserError: There are such files.
    """
    if paths:
        bucket = "gs://" if target == "vertex" else "s3:// or gs://"
        raise UserError(f"{paths[0]} is on this machine only, where {target} cannot read it; copy it to a {bucket} URI")
