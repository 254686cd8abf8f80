"""Where the compiled programs of a stage are kept (platform.compilation_cache)."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from podium.config import PodiumConfig
from podium.errors import expanded
from podium.stages.io import StageIO
from podium.stages.manifest import COMPILED, WORK
from podium.storage import remote

# What JAX reads and writes by itself, with fsspec.
_STORES = ("gs://", "s3://")


def place_of_programs(
    config: PodiumConfig, io: StageIO, folders: Sequence[str], say: Callable[[str], None]
) -> str | None:
    """Return a folder or URI, or None to keep none; `folders` are the outputs that are folders.

    Where the place is in a store that JAX cannot write, it is a folder of this machine, and that is said.
    """
    chosen, storage = config.platform.compilation_cache, os.environ.get("STORAGE")
    if chosen == "none" or not folders:
        return None
    if chosen != "auto":
        place = chosen
    elif storage:
        place = f"{storage.rstrip('/')}/cache"
    else:
        place = f"{io.place(folders[0]).rstrip('/')}/{WORK}/{COMPILED}"
    if not remote.is_remote(place):
        return str(remote.local_path(place))
    if place.startswith(_STORES):
        return place
    folder = Path(os.environ.get("PODIUM_CACHE") or expanded("~") / ".cache" / "podium") / COMPILED
    say(f"podium: compiled programs are kept in {folder}: JAX cannot keep any in {place.partition('://')[0]}://")
    return str(folder)
