"""Single checkpoints behind s3://, which Orbax does not write: by TensorStore, with JAX's manager of its writes."""

import json
import os
from collections.abc import Mapping
from typing import Any

import jax
from jax.experimental.array_serialization.serialization import GlobalAsyncCheckpointManager
from jax.sharding import SingleDeviceSharding

from podium.parallel import distributed
from podium.storage import remote
from podium.training import leaves

# Written when everything else is: what has none is no checkpoint. It holds the form and all that is no array.
_MARK = "complete.json"
# Tries of a request with up to so many seconds between them: some minutes without the store are overcome.
_RETRIES = {"max_retries": 10, "initial_delay": "1s", "max_delay": "32s"}
_READ_GB = 4


class ObjectStore:
    """Writes and reads the checkpoints below a URI: an array in the zarr3 format for each leaf, and a mark.

    Each process writes its parts of each array, and reads what it needs; no common disk is needed. Endpoint and region
    are those that the project's other files behind s3:// go to; credentials are looked for where AWS's clients do.
    """

    def __init__(self, uri: str) -> None:
        self.folder = uri.rstrip("/")
        self._bucket, _, self._path = self.folder.partition("://")[2].partition("/")
        self._service = remote.s3_service(self.folder)
        self._writer: GlobalAsyncCheckpointManager | None = None
        self._step: int | None = None

    def steps(self) -> list[int]:
        """List the steps of complete checkpoints."""
        names = (name.split("/") for name in remote.states(self.folder))
        return sorted(int(parts[0]) for parts in names if parts[1:] == [_MARK])

    def begin(self, step: int, state: Any, extra: Mapping[str, Any], limit: float) -> None:
        """Start to write a checkpoint; when this returns, the state may change."""
        state = jax.tree.map(leaves.data_of, state)
        named = _named(state)
        arrays = {name: leaf for name, leaf in named.items() if isinstance(leaf, jax.Array)}
        numbers = {name: leaf for name, leaf in named.items() if name not in arrays}
        mark = json.dumps({"form": leaves.form(state), "numbers": numbers, "extra": dict(extra)}).encode()
        self._step = step
        self._writer = GlobalAsyncCheckpointManager(timeout_secs=int(limit))
        self._writer.serialize(
            list(arrays.values()),
            [self._array(step, name) for name in arrays],
            on_commit_callback=lambda: remote.write_bytes(f"{self.folder}/{step}/{_MARK}", mark),
        )

    def check(self) -> None:
        """Raise what the write under way has failed with by now."""
        if self._writer is not None:
            self._writer.check_for_errors()

    def wait(self) -> None:
        """Wait for the write under way, and raise what it failed with."""
        if self._writer is not None:
            self._writer.wait_until_finished()

    def abandon(self) -> None:
        """Remove what is left of a write that has failed, where nobody else may be writing a part of it."""
        if distributed.count() == 1 and self._step is not None:
            self.remove(self._step)

    def clear(self) -> None:
        """Remove what is left of checkpoints that were not completed."""
        there = {name.split("/")[0] for name in remote.states(self.folder)}
        for step in there - {str(step) for step in self.steps()}:
            remote.remove(f"{self.folder}/{step}")

    def remove(self, step: int) -> None:
        """Remove a checkpoint, its mark first."""
        remote.remove(f"{self.folder}/{step}/{_MARK}")
        remote.remove(f"{self.folder}/{step}")

    def form(self, step: int) -> dict[str, str]:
        """Describe the leaves of a checkpoint."""
        form: dict[str, str] = self._mark(step)["form"]
        return form

    def restore(self, step: int, wanted: Any) -> tuple[Any, dict[str, Any]]:
        """Read the state, laid out as wanted, and the extra JSON values."""
        mark = self._mark(step)
        named = _named(wanted)
        arrays = {name: leaf for name, leaf in named.items() if name not in mark["numbers"]}
        here = SingleDeviceSharding(jax.local_devices()[0])
        restored = GlobalAsyncCheckpointManager().deserialize(
            [leaf.sharding or here for leaf in arrays.values()],
            [self._array(step, name) for name in arrays],
            concurrent_gb=_READ_GB,
        )
        values = mark["numbers"] | dict(zip(arrays, restored, strict=True))
        return jax.tree.unflatten(jax.tree.structure(wanted), [values[name] for name in named]), mark["extra"]

    def close(self) -> None:
        """Let go of threads: there is none when no write is under way."""

    def _mark(self, step: int) -> dict[str, Any]:
        content = remote.read_bytes(f"{self.folder}/{step}/{_MARK}")
        assert content is not None, "the steps that are listed have one"
        mark: dict[str, Any] = json.loads(content)
        return mark

    def _array(self, step: int, name: str) -> dict[str, Any]:
        """Return TensorStore's description of the place of an array."""
        # With keys in the environment AWS's client need not look for files, and say that there are none.
        credentials = {"type": "environment" if "AWS_ACCESS_KEY_ID" in os.environ else "default"}
        place = {"driver": "s3", "bucket": self._bucket, "path": f"{self._path}/{step}/{name}/"}
        return {
            "driver": "zarr3",
            "kvstore": place | self._service | {"aws_credentials": credentials},
            "context": {"s3_request_retries": _RETRIES},
        }


def _named(tree: Any) -> dict[str, Any]:
    """Give the leaves by their dotted names, in the order of the tree."""
    leaves_with_path = jax.tree_util.tree_leaves_with_path(tree)
    named = {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves_with_path}
    assert len(named) == len(leaves_with_path), "every leaf has a name of its own"
    return named
