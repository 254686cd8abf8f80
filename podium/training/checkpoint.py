"""Save and restore the whole state of a run, so that a run killed at any moment goes on as if it had not been."""

import contextlib
import logging
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from podium.errors import UserError, why_full

# What asyncio says to a write of TensorStore's that ends after the save has failed, and with it the loop; and of a
# future, task or group of tasks of Orbax's that failed beside it.
_LATE = "Event loop is closed"
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
    optimizer states; every process of a multi-host run must make the same calls.
    """

    def __init__(self, folder: str | os.PathLike[str], *, keep: int) -> None:
        """Open or make the folder; `keep` checkpoints stay, older ones are deleted after each save."""
        name = os.fspath(folder)
        self.folder = name if "://" in name else os.path.abspath(name)
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep,
            create=True,
            cleanup_tmp_directories=True,
            # Saving takes a second and the next step changes the arrays in place: nothing worth a thread of its own.
            enable_async_checkpointing=False,
        )
        # Named here, so that the form of a checkpoint can be read before anything was saved or restored.
        handlers = {"state": ocp.StandardCheckpointHandler(), "extra": ocp.JsonCheckpointHandler()}
        self._manager = ocp.CheckpointManager(self.folder, options=options, item_handlers=handlers)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        self._manager.close()

    @property
    def steps(self) -> list[int]:
        """List the steps of complete checkpoints, oldest first."""
        return sorted(self._manager.all_steps())

    def save(self, step: int, state: Any, extra: Mapping[str, Any]) -> None:
        """Save state and JSON values as the checkpoint after `step`, and return when it is complete.

        Raises UserError on a full disk; earlier checkpoints stay, and what was half-written is removed.
        """
        items = ocp.args.Composite(state=ocp.args.StandardSave(state), extra=ocp.args.JsonSave(dict(extra)))
        try:
            with _quiet():
                self._manager.save(step, args=items, force=True)
        except (OSError, ValueError) as error:
            reason = why_full(error)
            if reason is None:
                raise
            self._remove_remains()
            last = f"the checkpoint of step {self.steps[-1]} is intact" if self.steps else "there is no earlier one"
            raise UserError(
                f"{self.folder}: no room for the checkpoint of step {step} ({_megabytes(state)} MB); {last}. "
                f"{reason.capitalize()}, or choose another output folder, then start the same command again"
            ) from error

    def restore_latest(self, abstract_state: Any) -> Restored | None:
        """Restore the newest complete checkpoint, or return None where there is none.

        `abstract_state` is a tree of the saved form: arrays, or ShapeDtypeStructs that carry the shardings wanted now,
        which may differ from those at the time of saving. Raises UserError if the checkpoint is of another form.
        """
        step = self._manager.latest_step()
        if step is None:
            return None
        abstract_state = jax.tree.map(_wanted, abstract_state)
        self._check_form(step, abstract_state)
        items = ocp.args.Composite(state=ocp.args.StandardRestore(abstract_state), extra=ocp.args.JsonRestore())
        restored = self._manager.restore(step, args=items)
        return Restored(step, restored["state"], restored["extra"])

    def _check_form(self, step: int, abstract_state: Any) -> None:
        """Compare names, shapes and dtypes: Orbax would convert dtypes in silence, and fail on shapes at length."""
        saved = _form(self._manager.item_metadata(step)["state"].tree)
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


def _form(tree: Any) -> dict[str, str]:
    """Describe every leaf: dtype and shape by dotted name, the same for live and for saved trees."""
    leaves = jax.tree_util.tree_leaves_with_path(ocp.tree.serialize_tree(tree, keep_empty_nodes=True))
    return {jax.tree_util.keystr(path, simple=True, separator="."): _leaf_form(leaf) for path, leaf in leaves}


def _wanted(leaf: Any) -> Any:
    """Say what to restore, in what layout. Orbax asks for the numbers of a random key and gives back the key."""
    if isinstance(leaf, jax.ShapeDtypeStruct) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        numbers = jax.eval_shape(jax.random.key_data, leaf)
        return jax.ShapeDtypeStruct(numbers.shape, numbers.dtype, sharding=leaf.sharding)
    return ocp.utils.to_shape_dtype_struct(leaf)


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
