"""Start a job of several pods, or find it again, and follow it to its end."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from podium.errors import ExitCode, UserError
from podium_pipelines.multihost.jobs import Jobs, JobState, Pod, Unreachable
from podium_pipelines.multihost.workload import FINAL_CODES

# Seconds between looks, and those in which an image that cannot be pulled may still turn up.
POLL_S, IMAGE_S = 5.0, 120.0
# Seconds in which the cluster's API may be away.
AWAY_S = 900.0
# Lines of another host's pod that say why all ended.
_LAST = 20


class JobFailed(Exception):
    """A job ended badly; `code` is what its launcher ends with."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


def begin(jobs: Jobs, job: Mapping[str, Any], say: Callable[[str], None]) -> None:
    """Make a job, or find the one that an earlier attempt of the same owner made.

    Raises:
        UserError: The cluster refuses it, or another owner's job of this name is not done.
    """
    name = job["metadata"]["name"]
    owner = (job["metadata"].get("ownerReferences") or [{}])[0].get("uid", "")
    found = jobs.find(name)
    if found is not None and found.owner == owner:
        say(f"{jobs.kind} {name} is there; following it")
        return
    if found is not None and found.state == "active":
        raise UserError(f"{jobs.kind} {name} belongs to another run that is not done; cancel that one, or wait for it")
    if found is not None:
        jobs.delete(name)
        while jobs.find(name) is not None:
            time.sleep(1)
    jobs.create(job)
    say(f"{jobs.kind} {name} made")


@dataclass
class Follower:
    """Follows one job: says what its first host prints and what the others wait for.

    `clock` and `sleep` are those of `time`, in tests others.
    """

    jobs: Jobs
    name: str
    say: Callable[[str], None]
    poll_s: float = POLL_S
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    _read: dict[str, int] = field(default_factory=dict)
    _waiting: dict[int, str] = field(default_factory=dict)
    _no_image_since: float | None = None

    def to_end(self) -> None:
        """Follow the job until it is complete.

        Raises:
            JobFailed: It failed, or its image cannot be had.
            UserError: It is gone, the cluster does not let us look, or is away for longer than AWAY_S.
        """
        seen = self.clock()
        while True:
            try:
                if self._look():
                    return
                seen = self.clock()
            except Unreachable as error:
                # The hosts work on without us; a control plane is away for minutes when it is upgraded.
                if self.clock() - seen > AWAY_S:
                    raise
                self.say(f"{error}; looking again")
            self.sleep(self.poll_s)

    def _look(self) -> bool:
        """Say what is new; returns whether the job is complete."""
        state = self.jobs.find(self.name)
        if state is None:
            raise UserError(f"{self.jobs.kind} {self.name} was deleted")
        pods = self.jobs.pods(self.name)
        self._say_log(pods)
        if state.state == "failed":
            raise self._why(state, pods)
        self._say_waiting(pods)
        return state.state == "complete"

    def _say_log(self, pods: Sequence[Pod]) -> None:
        """Say what is new in the log of the first host's pods, of which a restart makes another."""
        for pod in pods:
            if pod.index == 0 and pod.started:
                self._tail(pod)

    def _tail(self, pod: Pod) -> None:
        for at, line in self.jobs.log(pod.name, self._read.get(pod.name, 0)):
            self._read[pod.name] = at
            self.say(line)

    def _say_waiting(self, pods: Sequence[Pod]) -> None:
        for pod in pods:
            if pod.waits_for and self._waiting.get(pod.index) != pod.waits_for:
                self.say(f"{pod.place} waits: {pod.waits_for}")
            self._waiting[pod.index] = pod.waits_for
        missing = [pod for pod in pods if pod.no_image]
        if not missing:
            self._no_image_since = None
        elif self._no_image_since is None:
            self._no_image_since = self.clock()
        elif self.clock() - self._no_image_since > IMAGE_S:
            raise JobFailed(f"{missing[0].place} has no image: {missing[0].waits_for}", ExitCode.USER)

    def _why(self, state: JobState, pods: Sequence[Pod]) -> JobFailed:
        """Say the last lines of the host that failed, where that was not the first one, whose log is said already."""
        failed = [pod for pod in pods if pod.exit_code]
        # A host that ended by a code of its own is the cause; the others left because it had.
        failed.sort(key=lambda pod: (not pod.out_of_memory, pod.exit_code not in FINAL_CODES))
        if not failed:
            return JobFailed(state.message or "the job failed", ExitCode.FAULT)
        cause = failed[0]
        if cause.index:
            for _, line in list(self.jobs.log(cause.name))[-_LAST:]:
                self.say(f"{cause.place}: {line}")
        if cause.out_of_memory:
            reason = "was out of memory; write more in platform.resources"
            return JobFailed(f"{cause.place} {reason}", ExitCode.FAULT)
        code = cause.exit_code if cause.exit_code in FINAL_CODES else ExitCode.FAULT
        return JobFailed(f"{cause.place} ended with exit code {cause.exit_code}: {state.message}", code or 1)
