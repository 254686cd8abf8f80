"""Save and restore the whole state of a run, so that a run killed at any moment goes on as if it had not been."""

import contextlib
import json
import os
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax

from podium.errors import UserError, chain, why_full, why_unwritable
from podium.parallel import distributed
from podium.storage import remote
from podium.training import leaves
from podium.training.object_store import ObjectStore
from podium.training.orbax_store import OrbaxStore

# A write or read that takes longer than this and the time of its bytes, at the rate of a slow disk, has failed.
_LEAST_S, _BYTES_A_S = 600.0, 20e6
_LONGEST_SHOWN = 200


class Restored(NamedTuple):
    """Hold a checkpoint: the step after which it was saved, the state, and the extra JSON values."""

    step: int
    state: Any
    extra: dict[str, Any]


class Checkpoints:
    """Keep the latest checkpoints of a run in one folder, local or behind gs:// or s3://.

    A save takes a copy of the state, whose bytes are written while the run goes on. A checkpoint becomes visible at
    once, after all of it is written (a folder by its name, in a store by a mark): a save that was interrupted is never
    restored, and its remains go with the next run. State is any tree of arrays, random keys, Python numbers and
    optimizer states; every process of a run must make the same calls.

    In a folder that all processes see, and in a store, each writes its own part. Where the folder is process 0's alone,
    that one gathers the state and writes it, and sends it back to the others when it is restored: the whole state then
    has to fit into the memory of each host. Either kind is restored by any number of processes.
    """

    def __init__(self, folder: str | os.PathLike[str], *, keep: int) -> None:
        """Open or make the folder; `keep` checkpoints stay, older ones are deleted after each save."""
        name = os.fspath(folder)
        self.folder = name if "://" in name else os.path.abspath(name)
        self._keep = keep
        self._common = distributed.is_common(self.folder)
        self._mine = _store(self.folder, common=self._common) if self._common or distributed.is_leader() else None
        if self._common and distributed.count() > 1 and not remote.is_remote(self.folder):
            self._require_writable()
        # The step that is being written, and what it may take.
        self._step: int | None = None
        self._state_bytes = 0

        def look() -> list[int]:
            self._store.clear()
            return self._store.steps()

        self._complete = distributed.lead(look)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None and distributed.peer_is_gone(error):
            return  # what it has not written will not be
        try:
            if error is None:
                self.wait()
            elif self._mine is not None:
                # By itself, without the others, who may have ended otherwise; and the error is what is said.
                with contextlib.suppress(Exception):
                    self._finish()
        finally:
            if self._mine is not None:
                self._mine.close()

    @property
    def steps(self) -> list[int]:
        """List the steps of complete checkpoints, oldest first; one that is being written is waited for."""
        self.wait()
        return list(self._complete)

    @property
    def _store(self) -> OrbaxStore | ObjectStore:
        assert self._mine is not None, "asked for in process 0, or of a common folder"
        return self._mine

    @property
    def _limit(self) -> float:
        return _LEAST_S + self._state_bytes / _BYTES_A_S

    def save(self, step: int, state: Any, extra: Mapping[str, Any]) -> None:
        """Start to save state and JSON values as the checkpoint after `step`; return when the state may change.

        An earlier save is waited for. Raises UserError where that, or the start of this one, finds a full disk, no
        permission or no store; earlier checkpoints stay, and what was half-written is removed.
        """
        self.wait()
        extra = json.loads(json.dumps(dict(extra)))
        self._step, self._state_bytes = step, leaves.size(state)
        if self._common:
            self._begin(step, state, extra)
        else:
            state = jax.tree.map(leaves.gathered, state)
            distributed.lead(lambda: self._begin(step, state, extra), limit=self._limit)

    def check(self) -> None:
        """Raise UserError where the write under way has failed by now, in this process; it is not waited for."""
        if self._mine is not None and self._step is not None:
            with self._explained():
                self._mine.check()

    def wait(self) -> None:
        """Wait until the write under way is complete, in all processes; raise UserError where it fails."""
        if self._common:
            self._finish()
        else:
            distributed.lead(self._finish, limit=self._limit)
            self._note_complete()

    def restore_latest(self, abstract_state: Any) -> Restored | None:
        """Restore the newest complete checkpoint, or return None where there is none.

        `abstract_state` is a tree of the saved form: arrays, or ShapeDtypeStructs that carry the shardings wanted now,
        which may differ from those at the time of saving. Raises UserError if the checkpoint is of another form.
        """
        steps = self.steps
        if not steps:
            return None
        step = steps[-1]
        self._state_bytes = leaves.size(abstract_state)
        if self._common:
            state, extra = self._restore(step, jax.tree.map(leaves.wanted, abstract_state))
            return Restored(step, jax.tree.map(leaves.as_wanted, state, abstract_state), extra)
        read: list[Any] = []

        def restore() -> Any:
            state, extra = self._restore(step, jax.tree.map(leaves.whole, abstract_state))
            read.append(state)
            return extra

        extra = distributed.lead(restore, limit=self._limit)
        return Restored(step, leaves.scattered(read[0] if read else None, abstract_state), extra)

    def _require_writable(self) -> None:
        """Find out before the first step that this process may not write where process 0 may."""
        mine = Path(self.folder) / f".writable-{distributed.index()}"
        try:
            mine.touch()
            mine.unlink()
        except OSError as error:
            raise UserError(
                f"{self.folder}: process {distributed.index()} ({socket.gethostname()}) cannot write its part of the "
                f"checkpoints: {why_unwritable(error) or error}"
            ) from error

    def _begin(self, step: int, state: Any, extra: Mapping[str, Any]) -> None:
        with self._explained():
            self._store.begin(step, state, extra, self._limit)

    def _finish(self) -> None:
        if self._step is None:
            return
        with self._explained():
            self._store.wait()
        for old in self._note_complete():
            if distributed.is_leader():
                self._store.remove(old)

    def _note_complete(self) -> list[int]:
        """Count the step that was being written, if any, among the complete ones; return those that go for it."""
        complete = self._complete if self._step is None else [*self._complete, self._step]
        self._step, self._complete = None, complete[-self._keep :]
        return complete[: -self._keep]

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn what writing raises for want of room, permission or a store into what the user reads of it."""
        try:
            yield
        except Exception as error:
            step, self._step = self._step, None
            if distributed.count() > 1 and _is_late(error):
                distributed.leave_stuck(f"the checkpoint of step {step} is not complete after {self._limit:.0f} s")
            with contextlib.suppress(OSError, UserError):
                self._store.abandon()
            meant = self._meant(step, error)
            if meant is None:
                raise
            raise meant from error

    def _meant(self, step: int | None, error: Exception) -> UserError | None:
        if distributed.peer_is_gone(error):
            return None
        last = f"the checkpoint of step {self._complete[-1]} is intact" if self._complete else "there is no earlier one"
        who = f" by process {distributed.index()} ({socket.gethostname()})" if distributed.count() > 1 else ""
        megabytes = round(self._state_bytes / 1e6)
        if reason := why_full(error):
            return UserError(
                f"{self.folder}: no room for the checkpoint of step {step} ({megabytes} MB{who and ','}{who}); {last}. "
                f"{reason.capitalize()}, or choose another output folder, then start the same command again"
            )
        what = f"{self.folder}: the checkpoint of step {step} cannot be written{who}"
        if reason := why_unwritable(error):
            return UserError(f"{what}: {reason}; {last}. Then start the same command again")
        if remote.is_remote(self.folder) and isinstance(error, OSError | ValueError | RuntimeError | UserError):
            said = (str(error).splitlines() or [type(error).__name__])[0][:_LONGEST_SHOWN]
            return UserError(f"{what} ({said}); {last}. Check the store and access, then start the same command again")
        return None

    def _restore(self, step: int, wanted: Any) -> tuple[Any, dict[str, Any]]:
        self._check_form(step, wanted)
        return self._store.restore(step, wanted)

    def _check_form(self, step: int, abstract_state: Any) -> None:
        """Compare names, shapes and dtypes: Orbax would convert dtypes in silence, and fail on shapes at length."""
        saved, wanted = self._store.form(step), leaves.form(abstract_state)
        wrong = sorted(name for name in saved.keys() | wanted.keys() if saved.get(name) != wanted.get(name))
        if wrong:
            name = wrong[0]
            raise UserError(
                f"{self.folder}: the checkpoint of step {step} is of another model or configuration: {name} is "
                f"{saved.get(name, 'absent')} there and {wanted.get(name, 'absent')} here. "
                "Use the configuration it was made with, write resume: never, or choose another output folder"
            )


def _is_late(error: BaseException) -> bool:
    """Tell whether another process has not been heard of in time."""
    return any(isinstance(item, TimeoutError) or "DEADLINE_EXCEEDED" in str(item) for item in chain(error))


def _store(folder: str, *, common: bool) -> OrbaxStore | ObjectStore:
    return ObjectStore(folder) if folder.startswith("s3://") else OrbaxStore(folder, common=common)
