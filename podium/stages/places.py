"""Compare the places of a stage with each other and with what the config reads, before anything is touched."""

import itertools
import os
import posixpath
from collections.abc import Iterator, Mapping
from pathlib import Path

from podium.errors import UserError
from podium.stages.io import StageIO, target
from podium.storage import remote

# Different names of one store.
_STORES = {"gcs": "gs", "s3a": "s3", "s3n": "s3"}


def refuse_overlaps(io: StageIO, outputs: Mapping[str, str], reads: Mapping[str, str]) -> None:
    """Refuse an output that is, holds or lies in another output or an input, or that is or holds what is read.

    `outputs` maps names to places; `reads` maps what the user wrote, such as `model.name_or_path`, to places.

    Raises:
        UserError: For the first such pair.
    """
    for (one, here), (other, there) in itertools.combinations(sorted(outputs.items()), 2):
        _refuse(f"output {one}", here, f"output {other}", there)
    for one, here in sorted(outputs.items()):
        for other, there in sorted(io.inputs.items()):
            _refuse(f"output {one}", here, f"input {other}", there)
        for other, there in sorted(reads.items()):
            # A run may well lie in the folder of its model or its data.
            _refuse(f"output {one}", here, other, there, may_lie_within=True)


def _refuse(one: str, here: str, other: str, there: str, *, may_lie_within: bool = False) -> None:
    if _holds(here, there):
        relation = "is" if _holds(there, here) else "holds"
    elif _holds(there, here) and not may_lie_within:
        relation = "lies in"
    else:
        return
    shown = there if relation != "is" or there != here else ""
    raise UserError(f"{one}: {here} {relation} {other}{shown and f' ({shown})'}; name a place of its own for each")


def _holds(outer: str, inner: str) -> bool:
    """Tell whether two places are the same, or one lies somewhere in the other, whatever they are called."""
    if remote.is_remote(outer) or remote.is_remote(inner):
        return remote.is_remote(outer) and remote.is_remote(inner) and _address(outer) in _ways_up(_address(inner))
    outer_path, inner_path = target(outer), target(inner)
    return any(_is_same(outer_path, path) for path in (inner_path, *inner_path.parents))


def _is_same(one: Path, other: Path) -> bool:
    """Compare names, then what they lead to: a file system may not care about case, or may be mounted twice."""
    if one == other:
        return True
    try:
        return os.path.samefile(one, other)
    except OSError:
        return False


def _address(uri: str) -> str:
    """Write a URI in one way: schemes and buckets know no case; slashes and dots in it mean the same key to nobody."""
    scheme, _, rest = uri.partition("://")
    bucket, _, key = rest.partition("/")
    path = posixpath.normpath("/" + "/".join(part for part in key.split("/") if part))
    return f"{_STORES.get(scheme.lower(), scheme.lower())}://{bucket.lower()}{path}"


def _ways_up(address: str) -> Iterator[str]:
    """Yield an address and everything that it lies in, up to the bucket."""
    scheme, _, rest = address.partition("://")
    parts = rest.rstrip("/").split("/")
    for end in range(len(parts), 0, -1):
        yield f"{scheme}://{'/'.join(parts[:end])}" if end > 1 else f"{scheme}://{parts[0]}/"
