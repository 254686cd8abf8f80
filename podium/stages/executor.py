"""Kubeflow's executor input and output: plain JSON, no kfp."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from podium.config import PodiumConfig
from podium.config.load import load_config_data
from podium.errors import UserError
from podium.stages.io import Result, StageIO
from podium.stages.manifest import read_manifest
from podium.storage.failures import unwritable
from podium.storage.files import write_text

# Where the launcher of Kubeflow, and Vertex's file system, put the contents of these stores.
_MOUNTS = {"gs://": "/gcs/", "s3://": "/s3/", "minio://": "/minio/"}


@dataclass(frozen=True)
class Task:
    """What KFP asks of one stage."""

    config: PodiumConfig
    io: StageIO
    artifacts: Mapping[str, Mapping[str, Any]]
    output_file: Path


def read_task(text: str) -> Task:
    """Read the executor input that KFP puts in place of `{{$}}`.

    Its config is a resolved one: names of other tools are unknown keys here, and nothing is implied.

    Raises:
        UserError: It is not JSON, lacks the config, or the config is wrong.
    """
    try:
        message = json.loads(text)
        inputs, outputs = message.get("inputs", {}), message["outputs"]
        given = _first_artifacts(inputs)
        artifacts = _first_artifacts(outputs)
        io = StageIO(_places(given), _places(artifacts))
        output_file = Path(outputs["outputFile"])
        parameters = _parameters(inputs)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise UserError(
            f"--executor-input is not what KFP passes for {{{{$}}}} ({repr(error)[:200]}); see docs/running.md"
        ) from error
    return Task(_config(parameters), io, artifacts, output_file)


def write_output(task: Task, result: Result) -> None:
    """Write executor_output.json: each output artifact with the metadata that the UI shows.

    Raises:
        UserError: It cannot be written.
    """
    report = {
        name: {"artifacts": [{**artifact, "metadata": artifact.get("metadata", {}) | _metadata(name, task.io, result)}]}
        for name, artifact in task.artifacts.items()
    }
    try:
        task.output_file.parent.mkdir(parents=True, exist_ok=True)
        write_text(task.output_file, json.dumps({"artifacts": report}, allow_nan=False))
    except OSError as error:
        raise unwritable(task.output_file, error) from error


def local_place(uri: str) -> str:
    """Return the mounted path of a URI where the platform mounts its store, else the URI."""
    for scheme, mount in _MOUNTS.items():
        if uri.startswith(scheme) and Path(mount).is_dir():
            return mount + uri.removeprefix(scheme)
    return uri


def _first_artifacts(side: Mapping[str, Any]) -> dict[str, Any]:
    """Return the artifact of each name; lists of artifacts do not occur in our components."""
    return {name: item["artifacts"][0] for name, item in side.get("artifacts", {}).items() if item.get("artifacts")}


def _places(artifacts: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Return where each artifact is; raise TypeError for one that is not described as KFP does."""
    for name, artifact in artifacts.items():
        if not isinstance(artifact["uri"], str) or not isinstance(artifact.get("metadata", {}), dict):
            raise TypeError(f"artifact {name} has no uri or metadata")
    return {name: local_place(artifact["uri"]) for name, artifact in artifacts.items()}


def _parameters(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters: plain values, or the typed values of older backends."""
    typed = inputs.get("parameters", {})
    plain = {name: next(iter(value.values())) for name, value in typed.items() if isinstance(value, dict) and value}
    return {**plain, **inputs.get("parameterValues", {})}


def _config(parameters: Mapping[str, Any]) -> PodiumConfig:
    value = parameters.get("config")
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise UserError(f"parameter config: is not JSON ({error}); pass the stage's sections") from error
    if not isinstance(value, dict):
        raise UserError("the executor input has no parameter config; pass the stage's sections of the configuration")
    return load_config_data(value, source="parameter config", resolved=True)


def _metadata(name: str, io: StageIO, result: Result) -> dict[str, Any]:
    """Return what the UI shows of an output: metrics as numbers, else the stage's words with digest and size."""
    if name == "metrics":
        return dict(result.metrics)
    path = io.output(name)
    manifest = read_manifest(path) if path.is_dir() else None
    described = {"sha256": manifest.digest, "size": manifest.size} if manifest else {}
    return described | result.metadata.get(name, {})
