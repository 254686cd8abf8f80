"""What runs found, for lists of them: read from where a run leaves its results."""

import json
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from podium.errors import UserError
from podium.storage import remote
from podium_pipelines.remote import RunState

RESULTS = "results.json"
_READERS = 8


@dataclass(frozen=True)
class Found:
    """The verdict of a run (green, amber, red) and how much reward it gained, in words; "" where that is not known."""

    verdict: str = ""
    gain: str = ""


def folder_of(storage: str, name: str) -> str:
    """Return where a run leaves its results."""
    return f"{storage.rstrip('/')}/runs/{name}"


def found_in(results: Mapping[str, Any]) -> Found:
    """Return what results.json of an evaluation says."""
    try:
        return Found(str(results["summary"]["verdict"]), f"{results['reward']['gain']['value']:+.2f}")
    except (KeyError, TypeError, ValueError):
        return Found()


def of_runs(runs: Iterable[RunState], storage: str | None) -> tuple[dict[str, Found], str]:
    """Return what the runs that have ended found, by name, and why some could not be read, if so."""
    names = [run.name for run in runs if run.finished and run.name]
    if storage is None or not remote.is_remote(storage):
        return {}, ""
    with ThreadPoolExecutor(_READERS) as readers:
        read = list(readers.map(lambda name: _read(f"{folder_of(storage, name)}/{RESULTS}"), names))
    problems = [one for one in read if isinstance(one, UserError)]
    found = {name: one for name, one in zip(names, read, strict=True) if isinstance(one, Found)}
    return found, str(problems[0]) if problems else ""


def _read(uri: str) -> Found | UserError:
    try:
        content = remote.read_bytes(uri)
        return found_in(json.loads(content)) if content else Found()
    except UserError as error:
        return error
    except ValueError:
        return Found()
