"""The scripts that kill, fill and tamper run the stages as they are."""

import importlib.util
from pathlib import Path

from podium.config import STAGES, load_config
from podium.stages.io import SPECS

SCRIPTS = Path(__file__).resolve().parents[2] / "benchmarks" / "reliability"


def test_the_tiny_run_has_every_stage_that_makes_something_from_no_demonstrations(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("tiny_run", SCRIPTS / "tiny_run.py")
    assert spec is not None and spec.loader is not None
    tiny_run = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tiny_run)
    assert list(tiny_run.STAGES) == [stage for stage in STAGES if stage != "sft" and SPECS[stage].outputs]
    for stage, (inputs, outputs) in tiny_run.STAGES.items():
        assert set(inputs) == set(SPECS[stage].inputs)
        assert all(name in SPECS[writer].outputs for name, writer in inputs.items())
        assert set(outputs) == set(SPECS[stage].outputs) - {"demonstrations"}
    config = load_config(tiny_run.write_inputs(tmp_path))
    assert Path(config.model.name_or_path) == tmp_path / "base"
