"""What the tests of pipelines share."""

from pathlib import Path

import pytest

from support.pipeline_runs import Runs


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    """Return a folder with a small config and its data files."""
    (tmp_path / "preferences.jsonl").write_text('{"prompt": "a", "chosen": "b", "rejected": "c"}\n')
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "a"}\n')
    (tmp_path / "rlhf.yaml").write_text(
        "model: {name_or_path: tiny}\n"
        f"data: {{preferences: {tmp_path}/preferences.jsonl, prompts: {tmp_path}/prompts.jsonl}}\n"
    )
    return Runs(tmp_path)
