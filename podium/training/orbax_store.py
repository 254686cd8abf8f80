"""Single checkpoints in a folder, or behind gs://, by Orbax."""

import contextlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orbax.checkpoint as ocp
from orbax.checkpoint.path import step as orbax_steps

from podium.parallel import distributed
from podium.training import leaves
from podium.training.quiet import Quiet

_LOOKS, _LOOK_S = 20, 0.1


class OrbaxStore:
    """Writes and reads the checkpoints of one folder, each in a subfolder that gets its name when all of it is written.

    common: whether all processes see the folder, and each writes its part; else process 0 alone uses this.
    """

    def __init__(self, folder: str, *, common: bool) -> None:
        self.folder = folder
        self._processes = ocp.options.MultiprocessingOptions()
        if distributed.count() > 1:
            # Named one by one they wait through the coordination service, which has limits of time; all, by a
            # collective.
            active = set(range(distributed.count())) if common else {0}
            self._processes = ocp.options.MultiprocessingOptions(active_processes=active)
        self._writer: ocp.AsyncCheckpointer | None = None
        self._reader = ocp.Checkpointer(self._handler(), multiprocessing_options=self._processes)
        self._quiet = Quiet()
        if "://" not in folder:
            Path(folder).mkdir(parents=True, exist_ok=True)

    def steps(self) -> list[int]:
        """List the steps of complete checkpoints."""
        return sorted(orbax_steps.checkpoint_steps(self.folder))

    def begin(self, step: int, state: Any, extra: Mapping[str, Any], limit: float) -> None:
        """Start to write a checkpoint; when this returns, the state may change."""
        if self._writer is None:
            self._writer = ocp.AsyncCheckpointer(
                self._handler(),
                # Made at once: a folder that cannot be written is noticed before the run goes on.
                async_options=ocp.AsyncOptions(timeout_secs=int(limit), create_directories_asynchronously=False),
                multiprocessing_options=self._processes,
            )
        self._quiet.begin()
        items = ocp.args.Composite(state=ocp.args.StandardSave(state), extra=ocp.args.JsonSave(dict(extra)))
        self._writer.save(f"{self.folder}/{step}", args=items, force=True)

    def check(self) -> None:
        """Raise what the write under way has failed with by now."""
        if self._writer is not None:
            self._writer.check_for_errors()

    def wait(self) -> None:
        """Wait for the write under way, and raise what it failed with."""
        if self._writer is not None:
            self._writer.wait_until_finished()
            self._quiet.end()

    def abandon(self) -> None:
        """Remove what is left of a write that has failed, where nobody else may be writing a part of it."""
        self._quiet.fail()
        if len(self._processes.active_processes or [0]) == 1:
            # Writes of other arrays may still be under way, and make the folder again.
            looks = 0
            while self.clear() and looks < _LOOKS:
                looks += 1
                time.sleep(_LOOK_S)

    def clear(self) -> bool:
        """Remove what is left of checkpoints that were not completed; tell whether there was something."""
        remains = orbax_steps.all_temporary_paths(self.folder)
        for path in remains:
            with contextlib.suppress(OSError):
                path.get().rmtree()
        return bool(remains)

    def remove(self, step: int) -> None:
        """Remove a checkpoint."""
        for path in orbax_steps.checkpoint_steps_paths(self.folder):
            if path.name == str(step):
                path.rmtree()

    def form(self, step: int) -> dict[str, str]:
        """Describe the leaves of a checkpoint."""
        return leaves.form(self._reader.metadata(f"{self.folder}/{step}").item_metadata["state"].tree)

    def restore(self, step: int, wanted: Any) -> tuple[Any, dict[str, Any]]:
        """Read the state, laid out as wanted, and the extra JSON values."""
        items = ocp.args.Composite(state=ocp.args.StandardRestore(wanted), extra=ocp.args.JsonRestore())
        restored = self._reader.restore(f"{self.folder}/{step}", args=items)
        return restored["state"], restored["extra"]

    def close(self) -> None:
        """Let go of threads."""
        self._reader.close()
        if self._writer is not None:
            self._writer.close()
            self._quiet.end()

    def _handler(self) -> ocp.CompositeCheckpointHandler:
        return ocp.CompositeCheckpointHandler(
            composite_options=ocp.CompositeOptions(multiprocessing_options=self._processes),
            state=ocp.StandardCheckpointHandler(multiprocessing_options=self._processes),
            extra=ocp.JsonCheckpointHandler(multiprocessing_options=self._processes),
        )
