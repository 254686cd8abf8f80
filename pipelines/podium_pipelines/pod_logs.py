"""What the pods of a run print: so far, or as it comes."""

import collections
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from podium_pipelines.cluster import Cluster
from podium_pipelines.pods import StagePod, stage_pods
from podium_pipelines.remote import Wanted
from podium_pipelines.stage_output import own_lines

_POLL_S = 5.0


@dataclass
class _Printed:
    """A line of a pod; None where its output ended, or what ended it."""

    pod: StagePod
    line: str | None = None
    error: Exception | None = None


@dataclass
class PodLogs:
    """The output of a run's pods, each stage after a line with its name; a later attempt's with its number."""

    cluster: Cluster
    namespace: str
    run: str
    wanted: Wanted
    _attempts: dict[str, int] = field(default_factory=dict)

    def so_far(self) -> Iterator[str]:
        """Yield the lines that were printed so far, stage by stage."""
        for pod in self._started():
            yield self._head(pod)
            yield from self._lines(pod, follow=False)

    def followed(self, finished: Callable[[], bool]) -> Iterator[str]:
        """Yield lines as they come, until the run has `finished` and all its pods have ended."""
        printed: queue.Queue[_Printed] = queue.Queue()
        known: set[str] = set()
        reading, shown = 0, ""
        while True:
            # Before the look at the pods: what started before the end is among them.
            over = finished()
            for pod in self._started():
                if pod.name not in known:
                    known.add(pod.name)
                    reading += 1
                    threading.Thread(target=self._read, args=(pod, printed), daemon=True).start()
            if over and not reading:
                return
            for item in _within(printed, _POLL_S):
                if item.error is not None:
                    raise item.error
                if item.line is None:
                    reading -= 1
                    if over and not reading:
                        return
                    continue
                if item.pod.name != shown:
                    shown = item.pod.name
                    yield self._head(item.pod)
                yield item.line

    def _started(self) -> list[StagePod]:
        """Return the pods that are wanted and have output: to ask one that waits would end at once."""
        pods = stage_pods(self.cluster.pods(self.namespace, self.run))
        numbers = collections.Counter[str]()
        for pod in pods:
            numbers[pod.stage] += not pod.driver
            self._attempts[pod.name] = numbers[pod.stage]
        return [
            pod
            for pod in pods
            if pod.started and self.wanted.stage in (None, pod.stage) and (self.wanted.everything or not pod.driver)
        ]

    def _head(self, pod: StagePod) -> str:
        if pod.driver:
            return f"== {pod.stage}: driver"
        number = self._attempts[pod.name]
        return f"== {pod.stage}" if number == 1 else f"== {pod.stage}: attempt {number}"

    def _lines(self, pod: StagePod, *, follow: bool) -> Iterable[str]:
        lines = self.cluster.log(self.namespace, pod.name, follow=follow)
        return lines if self.wanted.everything else own_lines(lines)

    def _read(self, pod: StagePod, printed: "queue.Queue[_Printed]") -> None:
        try:
            for line in self._lines(pod, follow=True):
                printed.put(_Printed(pod, line))
            printed.put(_Printed(pod))
        except Exception as error:
            printed.put(_Printed(pod, error=error))


def _within(printed: "queue.Queue[_Printed]", seconds: float) -> Iterator[_Printed]:
    """Yield what comes within some seconds."""
    end = time.monotonic() + seconds
    while (rest := end - time.monotonic()) > 0:
        try:
            yield printed.get(timeout=rest)
        except queue.Empty:
            return
