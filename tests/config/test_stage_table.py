"""The stage table, and what is written beside it by hand."""

import re
from importlib import import_module
from pathlib import Path
from typing import get_args

import pytest

from podium.config import STAGE_TABLE, STAGES, PodiumConfig
from podium.config.stage_table import StageName

README = Path(__file__).resolve().parents[2] / "README.md"


def test_the_type_of_a_stages_name_has_the_names_of_the_table() -> None:
    assert get_args(StageName) == STAGES


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_takes_what_earlier_ones_make(stage: str) -> None:
    spec, earlier = STAGE_TABLE[stage], STAGES[: STAGES.index(stage)]
    for one in spec.takes:
        assert one.stage in earlier
        assert one.output in STAGE_TABLE[one.stage].outputs
    assert set(spec.after) <= set(earlier)


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_has_a_program_and_reads_sections_that_there_are(stage: str) -> None:
    assert callable(import_module(f"podium.stages.{stage}").run)
    assert {section.partition(".")[0] for section in STAGE_TABLE[stage].sections} <= set(PodiumConfig.model_fields)


def test_the_readme_tells_of_every_stage_in_order() -> None:
    _, _, text = README.read_text(encoding="utf-8").partition("## What happens")
    assert tuple(re.findall(r"^\| `(\w+)` \|", text.partition("\n## ")[0], re.MULTILINE)) == STAGES
