"""The scripts that kill, fill and tamper run the stages as they are."""

import importlib.util
from pathlib import Path

from podium.config import load_config

SCRIPTS = Path(__file__).resolve().parents[2] / "benchmarks" / "reliability"


def test_the_tiny_run_has_a_config_that_can_be_read(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("tiny_run", SCRIPTS / "tiny_run.py")
    assert spec is not None and spec.loader is not None
    tiny_run = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tiny_run)
    config = load_config(tiny_run.write_inputs(tmp_path))
    assert Path(config.model.name_or_path) == tmp_path / "base"
