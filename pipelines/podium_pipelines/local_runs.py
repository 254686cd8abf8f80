"""The runs in the folders of this machine."""

import datetime
import json
from pathlib import Path
from typing import Any

from podium.errors import UserError
from podium.storage.locks import try_lock
from podium_pipelines import workdir
from podium_pipelines.remote import RunState
from podium_pipelines.run_results import RESULTS, Found, found_in
from podium_pipelines.summary import REPORTED, read_reported


def runs_in(folder: Path) -> list[tuple[Path, RunState, Found]]:
    """Return the run folders below a folder, newest first, how far each is, and what it found.

    Raises:
        UserError: It is no folder.
    """
    if not folder.is_dir():
        raise UserError(f"--local {folder}: there is no such folder; name the one that holds run folders")
    found = [path for path in sorted(folder.iterdir()) if (path / workdir.LOCK).exists()]
    return sorted((_described(path) for path in found), key=lambda one: str(one[1].begun), reverse=True)


def _described(path: Path) -> tuple[Path, RunState, Found]:
    config, gates = path / workdir.CONFIG, path / "gates" / REPORTED
    begun = _time(config) if config.exists() else None
    if _is_used(path / workdir.LOCK):
        return path, RunState("running", {}, path.name, begun), Found()
    results = _results(path)
    if gates.exists():
        return path, RunState("succeeded", {}, path.name, begun, _time(gates)), found_in(results)
    # Gates that fail a run leave nothing of their own.
    state = "stopped" if results.get("gates_passed", True) else "gates failed"
    return path, RunState(state, {}, path.name, begun), found_in(results)


def _results(path: Path) -> dict[str, Any]:
    """Return what evaluate found; nothing where it has not ended."""
    try:
        samples = Path(read_reported(path, "evaluate")["samples"]["uri"])
        return dict(json.loads((samples / RESULTS).read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError):
        return {}


def _is_used(lock: Path) -> bool:
    """Tell whether a process holds the lock of a run folder."""
    try:
        with lock.open("rb") as file:
            return not try_lock(file.fileno())
    except OSError:
        return False


def _time(path: Path) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(path.stat().st_mtime, datetime.UTC)
