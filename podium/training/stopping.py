"""Let SIGTERM and SIGINT end a loop between two steps instead of inside one."""

import signal
import threading
from types import FrameType
from typing import Any, Self

from podium.parallel import distributed

NUMBERS = (signal.SIGTERM, signal.SIGINT)


class StopSignals:
    """Note the first SIGTERM or SIGINT inside a `with` block, from `listen` on; the next one does what it always did.

    Handlers belong to the main thread; in any other, nothing is noted. Nor is it with several processes, where SIGTERM
    is JAX's (`distributed.asked_to_stop`): a handler beside its own would keep the notice from the others. Who sees
    `asked` raises `Stopped`; a block that ends without an exception sends itself the signal that came too late.
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
        free = distributed.count() == 1 and threading.current_thread() is threading.main_thread()
        if free and not self._before and not self.asked:
            self._before = {number: signal.signal(number, self._note) for number in NUMBERS}

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._asked = number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)  # None: not set from Python
        self._before = {}
