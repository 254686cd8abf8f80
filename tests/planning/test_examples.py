"""The plans that docs/scale.md has: their models have the parameters that are published, and a mesh that fits."""

from pathlib import Path

import pytest

from podium.config import load_config
from podium.planning import topology
from podium.planning.folders import models_of
from podium.planning.meshes import chips_of
from podium.planning.programs import Job, chosen_mesh
from podium.rlhf.work import weights_of

ROOT = Path(__file__).resolve().parents[2]
# The stage, and billions of parameters as the models' cards and papers have them; FLAN-T5-XXL's head is of its own.
PLANS = {
    "llama-2-7b": ("ppo", 6.74),
    "llama-2-13b": ("ppo", 13.02),
    "llama-2-70b": ("sft", 68.98),
    "llama-2-70b-lora": ("ppo", 68.98),
    "llama-2-70b-ppo": ("ppo", 68.98),
    "flan-t5-xxl": ("ppo", 11.14),
    "gemma-2-27b": ("ppo", 27.23),
}


def test_every_plan_is_here() -> None:
    assert {path.stem for path in (ROOT / "examples" / "plans").glob("*.yaml")} == PLANS.keys()


@pytest.mark.parametrize("name", PLANS)
def test_a_published_model_has_its_parameters_and_a_mesh(name: str) -> None:
    config = load_config(ROOT / "examples" / "plans" / f"{name}.yaml", (), [])
    stage, billions = PLANS[name]
    job = Job(stage, config, models_of(config, stage), "tpu")
    assert weights_of(job.network("policy")).total == pytest.approx(billions * 1e9, rel=0.001)
    assert chosen_mesh(job, chips_of(topology.wanted(config, stage, None, 1))).fits
