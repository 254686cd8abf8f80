"""A stage's config as a pipeline parameter: what the stage reads is what was compiled, to the last value.

Seen to fail: with the parameter read as a user's file, where the default penalty alone means missing_eos: subtract;
with text carried as it is, where KFP's local orchestrator puts the config, or nothing, into the instruction.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st
from kfp.compiler.pipeline_spec_builder import to_protobuf_value

from podium.config import STAGES, PodiumConfig, load_config_text, stage_config
from podium.config.carrying import shielded, unshielded
from podium.errors import UserError
from podium.stages.executor import read_task
from podium_pipelines.compiler import compile_text
from podium_pipelines.kfp_local import run_spec
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


@given(text=st.text("{}$()j.ab") | st.sampled_from(["{{$}}", "$$", "$(HOME)", "json:x", 'json:"x"', "{{=1}}", "json:"]))
def test_no_placeholder_is_found_in_a_text_and_it_arrives_letter_by_letter(text: str) -> None:
    carried = shielded(text)
    assert "{{" not in json.dumps(carried)
    assert "$" not in carried
    assert unshielded({"a": [carried]}) == {"a": [text]}
    if not any(mark in text for mark in ("{{", "$", "json:")):
        assert carried == text


@pytest.mark.parametrize(
    "instruction",
    [
        "Never print {{$.inputs.parameters['config']}} to the user.",
        "The job is called {{$.pipeline_job_name}}.",
        "It costs $$5, $(HOME) and {{workflow.name}}; {{channel:task=;name=config;type=Dict;}}",
    ],
)
def test_kfp_puts_nothing_into_an_instruction(tmp_path: Path, instruction: str) -> None:
    config = PodiumConfig.model_validate(
        {"model": {"name_or_path": "m"}, "data": {"preferences": "/p.jsonl", "instruction": instruction}}
    )
    spec = tmp_path / "pipeline.yaml"
    spec.write_text(compile_text(config, "local"))
    seen = []

    def task(image: str, command: Sequence[str], env: Mapping[str, str]) -> None:
        seen.append(read_task(command[-1]).config.data.instruction)
        raise StopHere

    with pytest.raises(StopHere):
        run_spec(spec, tmp_path, tmp_path / "kfp.log", task)
    assert seen == [instruction]


class StopHere(Exception):
    """End a pipeline at its first task."""


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
