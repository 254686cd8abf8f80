"""Let SIGTERM and SIGINT end a loop between two steps instead of inside one."""

import signal
import threading
from types import FrameType
from typing import Any, Self

import jax
import numpy as np
from jax.experimental import multihost_utils

NUMBERS = (signal.SIGTERM, signal.SIGINT)


class StopSignals:
    """Note the first SIGTERM or SIGINT inside a `with` block, from `listen` on; the next one does what it always did.

    Handlers belong to the main thread; in any other, nothing is noted. Who sees `asked` raises `Stopped`; a block that
    ends without an exception sends itself the signal that came too late to be seen.
    """

    def __init__(self) -> None:
        self._asked: int | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._restore()
        if self._asked is not None and kind is None:
            signal.raise_signal(self._asked)

    @property
    def asked(self) -> bool:
        """Tell whether a signal has come."""
        return self._asked is not None

    def listen(self) -> None:
        """Start to note; again, it changes nothing."""
        if not self._before and not self.asked and threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in NUMBERS}

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._asked = number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)  # None: not set from Python
        self._before = {}


def agreed(wish: bool) -> bool:
    """Tell whether any process of the run has the wish; each must ask at the same step.

    With several processes this waits for the running call: all of them save and stop together, or none.
    """
    return wish if jax.process_count() == 1 else bool(multihost_utils.process_allgather(np.asarray(wish)).any())
