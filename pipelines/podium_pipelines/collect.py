"""Bring the results of a run on a cluster to this machine: report, results, metrics, and the model with its card.

A file is there as a whole or not at all, and the model's are compared with the digests of its manifest, so that a
repeated call fetches what is missing.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Any

from podium.config import STAGES
from podium.errors import UserError, file_error
from podium.storage import remote
from podium.storage.digests import file_digest
from podium.storage.files import write_text
from podium.storage.parts import MANIFEST
from podium_pipelines.remote import NAME
from podium_pipelines.run_results import RESULTS, folder_of

REPORT, CARD, SUMMARY = "report.html", "README.md", "summary.md"
# Says whose results a folder holds.
_NOTE = ".podium-collect.json"
_SHOWN_FROM = 100_000_000

Artifacts = Mapping[str, Mapping[str, str]]


@dataclass(frozen=True)
class Left:
    """Where a run left its results: its id and name, the service's storage, and what is known of its artifacts."""

    run: str
    name: str
    storage: str
    artifacts: Artifacts


@dataclass(frozen=True)
class Collected:
    """What was brought; None is what the run has not left."""

    report: Path | None
    model: Path | None
    metrics: Path | None
    results: Mapping[str, Any]


def artifacts_below(base: str) -> dict[str, dict[str, str]]:
    """Return the URIs of a Kubeflow run's artifacts, by stage and output: its files are STAGE/ID/OUTPUT below the base.

    Raises:
        UserError: The store cannot be reached.
    """
    result: dict[str, dict[str, str]] = {}
    for name in remote.states(base):
        parts = name.split("/")
        if len(parts) > 2 and parts[0] in STAGES:
            result.setdefault(parts[0], {})[parts[2]] = f"{base}/{'/'.join(parts[:3])}"
    return result


def collect(left: Left, out: Path, say: Callable[[str], None]) -> Collected:
    """Fetch what a run left into a folder; what is whole there already stays.

    Raises:
        UserError: The folder holds something else, the run has left nothing, or the store cannot be read.
    """
    folder = folder_of(left.storage, left.name)
    there = remote.states(folder)
    model = left.artifacts.get("export", {}).get("model") or _cached_model(left.storage, folder, there)
    metrics = {stage: uris["metrics"] for stage, uris in left.artifacts.items() if "metrics" in uris}
    if not there and model is None and not metrics:
        raise UserError(
            f"{left.run} has left no results in {left.storage}: podium status {left.run} says how far it came"
        )
    try:
        _claim(out, left.run)
        for file in (RESULTS, SUMMARY, REPORT):
            if file in there:
                _fetch(f"{folder}/{file}", out, file)
        for stage, uri in metrics.items():
            for file in remote.states(uri):
                _fetch(f"{uri}/{file}", out / "metrics" / stage, file)
        if model is not None:
            _fetch_model(model, out / "model", say)
    except OSError as error:
        if meant := file_error(error, f"--out {out}"):
            raise meant from error
        raise
    return Collected(
        report=out / REPORT if REPORT in there else None,
        model=out / "model" if model is not None else None,
        metrics=out / "metrics" if metrics else None,
        results=json.loads((out / RESULTS).read_text(encoding="utf-8")) if RESULTS in there else {},
    )


def _claim(out: Path, run: str) -> None:
    """Make the folder ours.

    Raises:
        UserError: It holds something else.
    """
    note = out / _NOTE
    out.mkdir(parents=True, exist_ok=True)
    if note.exists():
        owner = json.loads(note.read_text(encoding="utf-8"))["run"]
        if owner != run:
            raise UserError(f"--out {out} holds the results of {owner}; name another folder")
        return
    foreign = min((entry.name for entry in out.iterdir()), default=None)
    if foreign is not None:
        raise UserError(f"--out {out} holds {foreign!r}, which podium collect did not bring; name a new folder")
    write_text(note, json.dumps({"run": run}) + "\n")


def _fetch_model(uri: str, folder: Path, say: Callable[[str], None]) -> None:
    """Fetch the files that a model's manifest names, and the manifest last."""
    content = remote.read_bytes(f"{uri}/{MANIFEST}")
    if content is None:
        raise UserError(f"{uri} has no {MANIFEST}: the model is not whole; podium status says how far the run is")
    for name, entry in json.loads(content)["files"].items():
        path = folder / name
        if path.is_file() and path.stat().st_size == entry["size"] and file_digest(path) == entry["sha256"]:
            continue
        if entry["size"] >= _SHOWN_FROM:
            say(f"Fetching {name} ({entry['size'] / 1e9:.1f} GB)")
        _fetch(f"{uri}/{name}", folder, name)
        if file_digest(path) != entry["sha256"]:
            path.unlink()
            raise UserError(f"{uri}/{name} is not what its {MANIFEST} says: damaged, or being written; collect again")
    _fetch(f"{uri}/{MANIFEST}", folder, MANIFEST)


def _fetch(uri: str, folder: Path, name: str) -> None:
    """Fetch one file to its name below a folder.

    Raises:
        UserError: The name, which comes from the store, leads out of the folder, or the file cannot be fetched.
    """
    if ".." in PurePosixPath(name).parts or name.startswith("/"):
        raise UserError(f"{uri} leads out of the folder that it is to be put in: not what podium writes")
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    remote.fetch_file(uri, path)


def _cached_model(storage: str, left: str, there: Mapping[str, Any]) -> str | None:
    """Find the model that an earlier run exported where Kubeflow took `export` from its cache, and does not say whose.

    Its card holds the summary of the evaluation, word for word. None where no card, or more than one, does.
    """
    content = remote.read_bytes(f"{left}/{SUMMARY}") if SUMMARY in there else None
    if not content:
        return None
    root, summary = f"{storage.rstrip('/')}/{NAME}", content.strip()
    cards = [name for name in remote.states(root) if fnmatch(name, f"*/export/*/model/{CARD}")]
    found = [name for name in cards if summary in (remote.read_bytes(f"{root}/{name}") or b"")]
    return f"{root}/{found[0].removesuffix(f'/{CARD}')}" if len(found) == 1 else None
