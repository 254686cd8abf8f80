"""What Orbax's threads and asyncio say of a write that fails, which whoever waits for it raises: left out."""

import logging
import sys
from typing import Any

# What asyncio says to a write of TensorStore's that ends after the save has failed, and with it the loop; and of a
# future, task or group of tasks of Orbax's that failed beside it.
_LATE = "Event loop is closed"
_UNHEARD = "exception was never retrieved"


class Quiet:
    """Silences the threads of a save, which log a failed write with its stack, from `begin` on.

    Where the save fails, other arrays' writes may still be under way: what asyncio says of them then is left out until
    the process ends.
    """

    def __init__(self) -> None:
        self._said: Any = None
        self._level = logging.NOTSET

    def begin(self) -> None:
        """Say nothing of writes from here on."""
        self.end()
        self._level, self._said = logging.getLogger("absl").level, sys.unraisablehook
        logging.getLogger("absl").setLevel(logging.CRITICAL + 1)
        said = self._said

        def leave_out_late_writes(unraisable: Any) -> None:
            if not (isinstance(unraisable.exc_value, RuntimeError) and str(unraisable.exc_value) == _LATE):
                said(unraisable)

        sys.unraisablehook = leave_out_late_writes

    def end(self) -> None:
        """Go back to what it was: the save is complete."""
        if self._said is not None:
            logging.getLogger("absl").setLevel(self._level)
            sys.unraisablehook = self._said
            self._said = None

    def fail(self) -> None:
        """Go back to what it was, but for writes that are still under way: the save has failed."""
        if self._said is not None:
            logging.getLogger("absl").setLevel(self._level)
            self._said = None
            logging.getLogger("asyncio").addFilter(_is_heard)


def _is_heard(record: logging.LogRecord) -> bool:
    return _UNHEARD not in record.getMessage().partition("\n")[0]
