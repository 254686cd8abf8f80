"""Save and restore the whole state of a run, so that a run killed at any moment goes on as if it had not been."""

import contextlib
import functools
import logging
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from podium.errors import UserError, why_full
from podium.parallel import distributed, placement

# What asyncio says to a write of TensorStore's that ends after the save has failed, and with it the loop; and of a
# future, task or group of tasks of Orbax's that failed beside it.
_LATE = "Event loop is closed"
# Seconds in which process 0 writes or reads what the others wait for.
_WRITING_S = 1800.0
_UNHEARD = "exception was never retrieved"


class Restored(NamedTuple):
    """Hold a checkpoint: the step after which it was saved, the state, and the extra JSON values."""

    step: int
    state: Any
    extra: dict[str, Any]


class Checkpoints:
    """Keep the latest checkpoints of a run in one folder, local or remote (gs://).

    A checkpoint becomes visible in one rename after all of it is written: a save that was interrupted is never
    restored, and its remains go with the next run. State is any tree of arrays, random keys, Python numbers and
    optimizer states; every process of a run must make the same calls.

    In a folder that all processes see each writes its own part. Where it is process 0's alone, that one gathers the
    state and writes it, and sends it back to the others when it is restored: the whole state then has to fit into the
    memory of each host. Either kind is restored by any number of processes.
    """

    def __init__(self, folder: str | os.PathLike[str], *, keep: int) -> None:
        """Open or make the folder; `keep` checkpoints stay, older ones are deleted after each save."""
        name = os.fspath(folder)
        self.folder = name if "://" in name else os.path.abspath(name)
        self._common = distributed.is_common(self.folder)
        self._manager = _manager(self.folder, keep, common=self._common)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        if self._manager is not None:
            self._manager.close()

    @property
    def steps(self) -> list[int]:
        """List the steps of complete checkpoints, oldest first, as process 0 sees them."""
        return distributed.lead(lambda: sorted(self._open.all_steps()))

    @property
    def _open(self) -> ocp.CheckpointManager:
        assert self._manager is not None, "asked for in process 0, or of a common folder"
        return self._manager

    def save(self, step: int, state: Any, extra: Mapping[str, Any]) -> None:
        """Save state and JSON values as the checkpoint after `step`, and return when it is complete.

        Raises UserError on a full disk; earlier checkpoints stay, and what was half-written is removed.
        """
        if self._common:
            self._save(step, state, extra)
            return
        state = jax.tree.map(_gathered, state)
        distributed.lead(lambda: self._save(step, state, extra), limit=_WRITING_S)

    def _save(self, step: int, state: Any, extra: Mapping[str, Any]) -> None:
        items = ocp.args.Composite(state=ocp.args.StandardSave(state), extra=ocp.args.JsonSave(dict(extra)))
        try:
            with _quiet():
                self._open.save(step, args=items, force=True)
        except (OSError, ValueError) as error:
            reason = why_full(error)
            if reason is None:
                raise
            self._remove_remains()
            steps = sorted(self._open.all_steps())
            last = f"the checkpoint of step {steps[-1]} is intact" if steps else "there is no earlier one"
            raise UserError(
                f"{self.folder}: no room for the checkpoint of step {step} ({_megabytes(state)} MB); {last}. "
                f"{reason.capitalize()}, or choose another output folder, then start the same command again"
            ) from error

    def restore_latest(self, abstract_state: Any) -> Restored | None:
        """Restore the newest complete checkpoint, or return None where there is none.

        `abstract_state` is a tree of the saved form: arrays, or ShapeDtypeStructs that carry the shardings wanted now,
        which may differ from those at the time of saving. Raises UserError if the checkpoint is of another form.
        """
        step = distributed.lead(lambda: self._open.latest_step())
        if step is None:
            return None
        if self._common:
            state, extra = self._restore(step, jax.tree.map(_wanted, abstract_state))
            return Restored(step, jax.tree.map(_as_wanted, state, abstract_state), extra)
        read: list[Any] = []

        def restore() -> Any:
            state, extra = self._restore(step, jax.tree.map(_whole, abstract_state))
            read.append(state)
            return extra

        extra = distributed.lead(restore, limit=_WRITING_S)
        return Restored(step, _scattered(read[0] if read else None, abstract_state), extra)

    def _restore(self, step: int, wanted: Any) -> tuple[Any, dict[str, Any]]:
        self._check_form(step, wanted)
        items = ocp.args.Composite(state=ocp.args.StandardRestore(wanted), extra=ocp.args.JsonRestore())
        restored = self._open.restore(step, args=items)
        return restored["state"], restored["extra"]

    def _check_form(self, step: int, abstract_state: Any) -> None:
        """Compare names, shapes and dtypes: Orbax would convert dtypes in silence, and fail on shapes at length."""
        saved = _form(self._open.item_metadata(step)["state"].tree)
        wanted = _form(abstract_state)
        wrong = sorted(name for name in saved.keys() | wanted.keys() if saved.get(name) != wanted.get(name))
        if wrong:
            name = wrong[0]
            raise UserError(
                f"{self.folder}: the checkpoint of step {step} is of another model or configuration: {name} is "
                f"{saved.get(name, 'absent')} there and {wanted.get(name, 'absent')} here. "
                "Use the configuration it was made with, write resume: never, or choose another output folder"
            )

    def _remove_remains(self) -> None:
        if "://" not in self.folder:
            for path in Path(self.folder).glob("*.orbax-checkpoint-tmp*"):
                shutil.rmtree(path, ignore_errors=True)


def _manager(folder: str, keep: int, *, common: bool) -> ocp.CheckpointManager | None:
    """Open a manager for the processes that write; None in the others."""
    if not (common or distributed.is_leader()):
        return None
    several = ocp.options.MultiprocessingOptions()
    if distributed.count() > 1:
        # Named one by one they wait through the coordination service, which has limits of time; all, by a collective.
        active = set(range(distributed.count())) if common else {0}
        several = ocp.options.MultiprocessingOptions(active_processes=active)
    options = ocp.CheckpointManagerOptions(
        max_to_keep=keep,
        # Orbax makes no folder for some of the processes: `is_common` has made it.
        create=distributed.count() == 1,
        cleanup_tmp_directories=True,
        # Saving takes a second and the next step changes the arrays in place: nothing worth a thread of its own.
        enable_async_checkpointing=False,
        multiprocessing_options=several,
    )
    # Named here, so that the form of a checkpoint can be read before anything was saved or restored.
    handlers = {
        "state": ocp.StandardCheckpointHandler(multiprocessing_options=several),
        "extra": ocp.JsonCheckpointHandler(),
    }
    return ocp.CheckpointManager(folder, options=options, item_handlers=handlers)


def _is_key(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _gathered(leaf: Any) -> Any:
    """Give a leaf whole, in every process."""
    if _is_key(leaf):
        # By its numbers: Orbax writes no array of one process's devices where there are several.
        leaf = jax.random.key_data(leaf)
    return placement.fetch(leaf)


def _as_wanted(leaf: Any, wanted: Any) -> Any:
    """Make a random key of numbers that one process saved for all."""
    return jax.random.wrap_key_data(leaf) if _is_key(wanted) and not _is_key(leaf) else leaf


def _whole(leaf: Any) -> Any:
    """Ask for a leaf on this host, whole."""
    return ocp.utils.to_shape_dtype_struct(jax.eval_shape(jax.random.key_data, leaf) if _is_key(leaf) else leaf)


def _scattered(state: Any, abstract_state: Any) -> Any:
    """Send what process 0 has read to all, a leaf at a time, and lay it out as wanted."""

    def send(leaf: Any, wanted: Any) -> Any:
        value = multihost_utils.broadcast_one_to_all(leaf, is_source=distributed.is_leader())
        return jax.make_array_from_callback(wanted.shape, wanted.sharding, functools.partial(_part, np.asarray(value)))

    numbers = jax.tree.map(_numbers_of, abstract_state)
    if state is None:
        state = jax.tree.map(lambda wanted: np.zeros(wanted.shape, wanted.dtype), numbers)
    else:
        state = jax.tree.map(lambda leaf: jax.random.key_data(leaf) if _is_key(leaf) else leaf, state)
    sent = jax.tree.map(send, state, numbers)
    return jax.tree.map(_as_wanted, sent, abstract_state)


def _part(value: np.ndarray, index: Any) -> np.ndarray:
    part: np.ndarray = value[index]
    return part


def _numbers_of(leaf: Any) -> Any:
    """Describe the numbers of a leaf: a random key's, or its own."""
    if not _is_key(leaf):
        return leaf
    numbers = jax.eval_shape(jax.random.key_data, leaf)
    return jax.ShapeDtypeStruct(numbers.shape, numbers.dtype, sharding=leaf.sharding)


def _form(tree: Any) -> dict[str, str]:
    """Describe every leaf: dtype and shape by dotted name, the same for live and for saved trees."""
    leaves = jax.tree_util.tree_leaves_with_path(ocp.tree.serialize_tree(tree, keep_empty_nodes=True))
    return {jax.tree_util.keystr(path, simple=True, separator="."): _leaf_form(leaf) for path, leaf in leaves}


def _wanted(leaf: Any) -> Any:
    """Say what to restore, in what layout. Orbax asks for the numbers of a random key and gives back the key."""
    return _numbers_of(leaf) if _is_key(leaf) else ocp.utils.to_shape_dtype_struct(leaf)


def _leaf_form(leaf: Any) -> str:
    if isinstance(leaf, int | float | ocp.metadata.ScalarMetadata):
        return "a number"
    return f"{leaf.dtype}{list(leaf.shape)}"


def _megabytes(state: Any) -> int:
    return round(sum(leaf.nbytes for leaf in jax.tree.leaves(state) if isinstance(leaf, jax.Array)) / 1e6)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence Orbax's threads, which log a failed write with its stack before `save` raises it.

    Other arrays' writes may still be under way then. What asyncio says of them is left out until the process ends.
    """
    logger = logging.getLogger("absl")
    level, said = logger.level, sys.unraisablehook
    logger.setLevel(logging.CRITICAL + 1)

    def leave_out_late_writes(unraisable: Any) -> None:
        if not (isinstance(unraisable.exc_value, RuntimeError) and str(unraisable.exc_value) == _LATE):
            said(unraisable)

    sys.unraisablehook = leave_out_late_writes
    try:
        yield
        sys.unraisablehook = said
    except BaseException:
        logging.getLogger("asyncio").addFilter(_is_heard)
        raise
    finally:
        logger.setLevel(level)


def _is_heard(record: logging.LogRecord) -> bool:
    return _UNHEARD not in record.getMessage().partition("\n")[0]
