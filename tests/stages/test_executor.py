"""What KFP says to a stage and what it is told, as plain JSON.

Seen to fail: with metadata replaced instead of added to; with typed parameters ignored; with the mount used although it
is not there.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podium.errors import UserError
from podium.stages import executor
from podium.stages.io import Result, write_manifest

# What KFP's message and a config are made of.
KEYS = [
    *("inputs", "outputs", "parameterValues", "parameters", "config", "artifacts", "uri", "metadata", "outputFile"),
    *("model", "name_or_path", "data", "prompts", "path", "ppo", "lora", "r", "platform", "mesh", "seed", "x"),
]
CONFIG = {"model": {"name_or_path": "some/model"}, "seed": 3.0}


def artifact(uri: str, **metadata: Any) -> dict[str, Any]:
    return {
        "artifacts": [
            {
                "name": "x",
                "uri": uri,
                "type": {"schemaTitle": "system.Model", "schemaVersion": "0.0.1"},
                "metadata": metadata,
            }
        ]
    }


def message(folder: Path, **inputs: Any) -> str:
    return json.dumps(
        {
            "inputs": {"artifacts": {"preferences": artifact(f"{folder}/preferences")}, **inputs},
            "outputs": {
                "artifacts": {
                    "reward_model": artifact(f"{folder}/reward_model", owner="somebody"),
                    "metrics": artifact(f"{folder}/metrics"),
                },
                "outputFile": f"{folder}/deep/executor_output.json",
            },
        }
    )


@pytest.mark.parametrize(
    "inputs",
    [
        {"parameterValues": {"config": CONFIG}},
        {"parameterValues": {"config": json.dumps(CONFIG)}},
        {"parameters": {"config": {"stringValue": json.dumps(CONFIG)}}},
    ],
)
def test_config_and_places_are_read_from_the_executor_input(tmp_path: Path, inputs: dict[str, Any]) -> None:
    (tmp_path / "preferences").mkdir()
    task = executor.read_task(message(tmp_path, **inputs))
    # KFP carries the integers inside a dict as floats.
    assert (task.config.seed, task.config.model.name_or_path) == (3, "some/model")
    assert task.io.input("preferences") == tmp_path / "preferences"
    assert task.io.output("reward_model") == tmp_path / "reward_model"


def test_the_executor_output_reports_every_artifact_with_its_metadata(tmp_path: Path) -> None:
    task = executor.read_task(message(tmp_path, parameterValues={"config": CONFIG}))
    folder = tmp_path / "reward_model"
    folder.mkdir()
    (folder / "weights").write_text("12345")
    manifest = write_manifest(folder, stage="reward", config=task.config, inputs={})
    executor.write_output(task, Result({"accuracy": 0.75}, {"reward_model": {"framework": "jax"}}))
    told = json.loads((tmp_path / "deep" / "executor_output.json").read_text())["artifacts"]
    model = told["reward_model"]["artifacts"][0]
    assert model["uri"] == str(folder)
    assert model["type"]["schemaTitle"] == "system.Model"
    assert model["metadata"] == {"owner": "somebody", "sha256": manifest.digest, "size": 5, "framework": "jax"}
    assert told["metrics"]["artifacts"][0]["metadata"] == {"accuracy": 0.75}


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"outputs": {}}', '{"inputs": 7, "outputs": {"outputFile": "x"}}']
)
def test_something_else_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(UserError, match=r"--executor-input is not what KFP passes for \{\{\$\}\}") as caught:
        executor.read_task(text)
    assert len(str(caught.value).splitlines()) == 1


def test_a_wrong_config_parameter_names_its_key(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the executor input has no parameter config"):
        executor.read_task(message(tmp_path))
    with pytest.raises(UserError, match=r"^parameter config: sed: unknown key; did you mean 'seed'\?$"):
        executor.read_task(message(tmp_path, parameterValues={"config": {**CONFIG, "sed": 1}}))


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5) | st.sampled_from(["/x", "gs://b/x"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=20,
)


@given(inputs=JSON, outputs=JSON, config=JSON)
def test_whatever_comes_is_a_task_or_a_user_s_mistake(inputs: Any, outputs: Any, config: Any) -> None:
    whole = {"inputs": {"parameterValues": {"config": config}}, "outputs": {"outputFile": "/o"}}
    loose = {"inputs": inputs, "outputs": outputs}
    for text in [json.dumps(whole), json.dumps(loose), json.dumps(inputs), json.dumps(loose)[: len(str(loose)) // 2]]:
        try:
            assert executor.read_task(text).config.model.name_or_path
        except UserError as error:
            assert len(str(error).splitlines()) <= 6
            assert all(len(line) < 500 for line in str(error).splitlines())


@pytest.mark.parametrize("text", ['{"inputs":' * 100_000, '{"outputs": {"artifacts": {"x": {"artifacts": [7]}}}}'])
def test_depth_and_shape_of_the_message_are_no_fault_of_ours(text: str) -> None:
    with pytest.raises(UserError, match="--executor-input is not what KFP passes"):
        executor.read_task(text)


def test_a_store_is_read_through_its_mount_where_there_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor, "_MOUNTS", {"gs://": f"{tmp_path}/gcs/", "s3://": f"{tmp_path}/s3/"})
    (tmp_path / "gcs").mkdir()
    assert executor.local_place("gs://bucket/run/policy") == f"{tmp_path}/gcs/bucket/run/policy"
    assert executor.local_place("s3://bucket/run/policy") == "s3://bucket/run/policy"
    assert executor.local_place("/runs/policy") == "/runs/policy"


def test_an_output_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "deep").write_text("a file")
    task = executor.read_task(message(tmp_path, parameterValues={"config": CONFIG}))
    with pytest.raises(UserError, match=r"executor_output\.json: cannot be written"):
        executor.write_output(task, Result())
