"""What a namespace has to hold before phases can run on several hosts of its cluster."""

from typing import Any

from podium_pipelines.multihost.train_job import training_runtime


def manifests(namespace: str) -> list[dict[str, Any]]:
    """Return the objects for a namespace; nothing of them is cluster-wide."""
    return [_within(training_runtime(), namespace)]


def _within(thing: dict[str, Any], namespace: str) -> dict[str, Any]:
    return thing | {"metadata": {**thing["metadata"], "namespace": namespace}}
