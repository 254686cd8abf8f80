"""Notice a run that stands still: heartbeats do not see a process that is alive but stuck."""

import faulthandler
import statistics
import sys
import threading
import time

from podium.parallel import distributed

# A call of steps may take so many times the median of those before it, and at least so many seconds.
SLOW, SLOW_S = 10, 600.0
_LOOK_S = 1.0


class StepClock:
    """Ends the process where, in a run of several, a call of steps takes too long.

    limit: seconds of a call; None: ten times the median of those before, and at least ten minutes. Compiling and
    loading come before the first call and are not timed.
    """

    def __init__(self, limit: float | None) -> None:
        self._limit = limit
        self._times: list[float] = []
        self._last: float | None = None
        self._calls = 0
        self._closed = threading.Event()
        self._watcher: threading.Thread | None = None

    def __enter__(self) -> "StepClock":
        if distributed.count() > 1:
            self._watcher = threading.Thread(target=self._watch, name="podium-steps", daemon=True)
            self._watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        if self._watcher is not None:
            self._watcher.join()

    def tick(self) -> None:
        """Note that a call has ended."""
        now = time.monotonic()
        if self._last is not None:
            self._times = [*self._times[-99:], now - self._last]
        self._last, self._calls = now, self._calls + 1
        distributed.report_call(self._calls)

    def pause(self) -> None:
        """Leave out the time until the next call ends: more than a call happens in it, such as a checkpoint."""
        self._last = None

    @property
    def limit(self) -> float:
        """Seconds that a call may take now."""
        if self._limit is not None:
            return self._limit
        return max(SLOW_S, SLOW * statistics.median(self._times)) if self._times else SLOW_S

    def _watch(self) -> None:
        while not self._closed.wait(_LOOK_S):
            last = self._last
            if last is not None and time.monotonic() - last > self.limit:
                reason = self._reason()
                print(f"podium: {reason}; the stacks of this process:", file=sys.stderr, flush=True)
                faulthandler.dump_traceback(all_threads=True)
                distributed.leave_stuck(reason)

    def _reason(self) -> str:
        calls = distributed.calls_of_all()
        late = [str(index) for index, done in enumerate(calls) if done < max(calls)]
        behind = f"; behind the others: process {', '.join(late)}" if late else ""
        return f"no call of steps has ended for {self.limit:.0f} s (platform.step_timeout){behind}"
