"""Tests on a real Kubernetes with Kubeflow Trainer and JobSet: `make cluster-test`; `make test` leaves them out."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.cluster import Cluster, DataVolume
from support.gang import write_whole

# By the documented way in alone: the cluster that a developer's kubeconfig happens to name is not ours to fill.
collect_ignore_glob = [] if os.environ.get("PODIUM_CLUSTER_TESTS") else ["test_*.py"]


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A namespace that enforces Pod Security "restricted" and holds what `podium manifests` prints."""
    with Cluster.begin() as found:
        yield found


@pytest.fixture(scope="session")
def data(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> DataVolume:
    """A volume that all pods see, with a tiny model, data and config."""
    folder = tmp_path_factory.mktemp("inputs")
    write_whole(folder)
    volume = DataVolume.make(cluster)
    volume.put(folder)
    return volume


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for what is fetched from the volume."""
    return tmp_path_factory.mktemp("results")
