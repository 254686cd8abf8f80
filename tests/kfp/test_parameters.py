"""A stage's config as a pipeline parameter: what the stage reads is what was compiled, to the last value.

Seen to fail: with the parameter read as a user's file, where the default penalty alone means missing_eos: subtract.
"""

import json
from typing import Any

import pytest
from google.protobuf import json_format
from hypothesis import given
from kfp.compiler.pipeline_spec_builder import to_protobuf_value

from podium.config import STAGES, PodiumConfig, load_config_text, stage_config
from podium.errors import UserError
from podium.stages.executor import read_task
from podium_pipelines.parameters import stage_parameter
from support.configs import configs


def as_a_stage_reads_it(parameter: dict[str, Any]) -> PodiumConfig:
    """Return the config of a task whose parameter went through KFP: every number is a float there."""
    carried = json.loads(json_format.MessageToJson(to_protobuf_value(parameter)))
    return read_task(
        json.dumps({"inputs": {"parameterValues": {"config": carried}}, "outputs": {"outputFile": "/o"}})
    ).config


@given(config=configs())
def test_a_stage_reads_what_was_compiled(config: PodiumConfig) -> None:
    for stage in STAGES:
        parameter = stage_parameter(config, stage)
        assert stage_config(as_a_stage_reads_it(parameter), stage) == stage_config(config, stage)


def test_nothing_is_implied_in_a_stage() -> None:
    config = load_config_text("model: {name_or_path: some/model}\nppo: {missing_eos: null}")
    assert as_a_stage_reads_it(stage_parameter(config, "ppo")).ppo.missing_eos is None
    # In a file, the same words without the null are a person's wish.
    penalised = load_config_text("model: {name_or_path: some/model}\nppo: {missing_eos_penalty: 1.0}")
    assert as_a_stage_reads_it(stage_parameter(penalised, "ppo")).ppo.missing_eos == "subtract"


@pytest.mark.parametrize(
    ("parameter", "expected"),
    [
        ({"model": {"model_name_or_path": "m"}}, "parameter config: model.model_name_or_path: unknown key"),
        ({"model": {"name_or_path": "m"}, "ppo": {"cliprange": 0.1}}, "parameter config: ppo.cliprange: unknown key"),
        ({"large_model_reference": "m", "prompt_dataset": "p"}, "parameter config: large_model_reference: unknown key"),
    ],
)
def test_names_of_other_tools_belong_to_a_file(parameter: dict[str, Any], expected: str) -> None:
    with pytest.raises(UserError) as caught:
        as_a_stage_reads_it(parameter)
    assert expected in str(caught.value)
