"""What the tests of pipelines share."""

from pathlib import Path

import pytest

from support.pipeline_runs import Runs, make_runs


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    """Return a folder with a small config and its data files."""
    return make_runs(tmp_path)
