"""Read a checkpoint by several processes: each a contiguous part of its bytes, which the devices bring to their places.

No process reads or holds the whole, and what each reads is checked on the way against the digests that the folder's
manifest notes. Bytes travel between devices as they are stored, one tensor at a time, and are widened where they lie.
"""

import contextlib
import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from podium.errors import UserError
from podium.models.weights.files import TensorFiles
from podium.models.weights.layout import Leaf, Tree, tree_from, tree_get
from podium.parallel import distributed
from podium.storage.parts import PartReader, noted_trees, shares, tree_digest, whole_and_parts

_DTYPES = {"F32": jnp.float32, "F16": jnp.float16, "BF16": jnp.bfloat16}
# Processes wait so long for the slowest disk.
_READING_S = 3600.0


class _Place(NamedTuple):
    """Where a stored tensor belongs: a leaf, and its layer there."""

    leaf: Leaf
    layer: int


def read_together(
    files: TensorFiles, leaves: Sequence[Leaf], names: Mapping[str, str], shardings: Tree, mesh: Mesh
) -> Tree:
    """Read leaves as float32; names: under what name each tensor is stored. All processes of the mesh must call it.

    Raises:
        UserError: A tensor holds NaN or infinity, or a file is not what its manifest notes.
    """
    places = {names[leaf.name(layer)]: _Place(leaf, layer) for leaf in leaves for layer in range(max(leaf.layers, 1))}
    own = shares({path: path.stat().st_size for path in files.paths}, distributed.count())[distributed.index()]
    trees = {path: noted_trees(path.parent).get(path.name) for path in files.paths}
    arrays: dict[Any, jax.Array] = {}
    finite: dict[str, jax.Array] = {}
    pieces: dict[str, list[str]] = {}
    for path in files.paths:
        with _opened(path, own.get(path), digests=trees[path] is not None) as reader:
            for name, begin, end in files.offsets(path):
                if name not in places or files.where[name] != path:
                    continue
                leaf, layer = places[name]
                bits = _spread(_own_bytes(reader, begin, end), mesh)
                into = _into(leaf, files.headers[path][name]["dtype"], tree_get(shardings, leaf.path))
                held = arrays.pop(leaf.path) if leaf.path in arrays else into.empty()
                arrays[leaf.path], finite[name] = into.put(held, bits, layer)
                # One transfer at a time: the bytes of all tensors would not fit beside the weights.
                finite[name].block_until_ready()
            if reader is not None:
                pieces[path.name] = reader.finish()
    _check_contents(trees, pieces)
    for name, is_finite in jax.device_get(finite).items():
        if not is_finite:
            raise files.not_finite(name)
    return tree_from([(leaf.path, arrays[leaf.path]) for leaf in leaves])


def check_alone(files: TensorFiles) -> None:
    """Compare files with what their manifest notes where this process reads all of them itself.

    Raises:
        UserError: One has another content.
    """
    for path in files.paths:
        noted = noted_trees(path.parent).get(path.name)
        if noted is not None and whole_and_parts(path)[1] != noted:
            raise _other_content(path)


@contextlib.contextmanager
def _opened(path: Path, part: tuple[int, int] | None, *, digests: bool) -> Iterator[PartReader | None]:
    if part is None:
        yield None
        return
    with PartReader(path, *part, digests=digests) as reader:
        yield reader


def _own_bytes(reader: PartReader | None, begin: int, end: int) -> np.ndarray | int:
    """Return a tensor's bytes as numbers of 32 bits, zeros where others have them; or how many they are."""
    length = -(-(end - begin) // 4)
    if reader is None or begin >= reader.end or end <= reader.begin:
        return length
    result = np.zeros(length, np.int32)
    first, last = max(begin, reader.begin), min(end, reader.end)
    reader.copy(first, result.view(np.uint8).data[first - begin : last - begin])
    return result


def _spread(own: np.ndarray | int, mesh: Mesh) -> jax.Array:
    """Give every device a row of numbers: the first of this process what it read, the others zeros."""
    length = own if isinstance(own, int) else len(own)
    devices = mesh.local_devices
    rows = [jnp.zeros((1, length), jnp.int32, device=device) for device in devices]
    if not isinstance(own, int):
        rows[0] = jax.device_put(own[None], devices[0])
    sharding = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
    return jax.make_array_from_single_device_arrays((mesh.size, length), sharding, rows)


class _Into(NamedTuple):
    """The programs that make room for a leaf, and put a tensor into it: (leaf, bits, layer) -> (leaf, is it finite)."""

    empty: Any
    put: Any


@functools.lru_cache(maxsize=256)
def _into(leaf: Leaf, dtype: str, sharding: NamedSharding) -> _Into:
    shape = (leaf.layers, *leaf.shape) if leaf.layers else leaf.shape
    size = int(np.prod(leaf.file_shape))
    whole = tuple(slice(0, length) for length in leaf.shape)

    def put(held: jax.Array, bits: jax.Array, layer: Any) -> tuple[jax.Array, jax.Array]:
        # Each number is zero in all rows but at most one, or its bytes are: the sum puts them together.
        joined = jnp.sum(bits, axis=0, dtype=jnp.int32)
        values = jax.lax.bitcast_convert_type(joined, _DTYPES[dtype]).reshape(-1)[:size].reshape(leaf.file_shape)
        values = leaf.from_file(values, whole).astype(jnp.float32)
        if leaf.layers:
            return jax.lax.dynamic_update_index_in_dim(held, values, layer, 0), jnp.isfinite(values).all()
        return values.astype(held.dtype), jnp.isfinite(values).all()

    return _Into(
        jax.jit(functools.partial(jnp.zeros, shape, jnp.float32), out_shardings=sharding),
        jax.jit(put, donate_argnums=0, out_shardings=(sharding, NamedSharding(sharding.mesh, PartitionSpec()))),
    )


def _check_contents(trees: Mapping[Path, str | None], pieces: Mapping[str, list[str]]) -> None:
    """Put together what the processes have read, and compare it with what is noted."""
    of_all = distributed.all_gather_json(pieces, limit=_READING_S)
    for path, noted in trees.items():
        if noted is not None and tree_digest(piece for one in of_all for piece in one.get(path.name, ())) != noted:
            raise _other_content(path)


def _other_content(path: Path) -> UserError:
    return UserError(
        f"{path}: has another content than manifest.json notes (sha256); "
        "copy the folder again, or start again the stage that wrote it"
    )
