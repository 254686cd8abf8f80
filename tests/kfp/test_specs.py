"""The compiled pipelines: kept as files, strict, and wired without a loose end."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.protobuf import json_format
from kfp.kubernetes import kubernetes_executor_config_pb2
from kfp.pipeline_spec import pipeline_spec_pb2

import podium_components
from podium.config import STAGE_TABLE, STAGES, PodiumConfig, stage_config, stages_of
from podium.errors import UserError
from podium.version import __version__
from podium_pipelines.compiler import compile_text, local_paths
from podium_pipelines.specs import ROOT, generated

TARGETS = ("local", "kubeflow", "vertex")
EDGES = {
    "reward": {"preferences": ("prepare", "preferences")},
    "sample": {"prompts": ("prepare", "prompts")},
    "ppo": {"prompts": ("prepare", "prompts"), "reward_model": ("reward", "reward_model")},
    "evaluate": {
        "policy": ("ppo", "policy"),
        "candidates": ("sample", "candidates"),
        "reward_model": ("reward", "reward_model"),
        "data_report": ("prepare", "data_report"),
    },
    "export": {"policy": ("ppo", "policy"), "samples": ("evaluate", "samples")},
    "gates": {"samples": ("evaluate", "samples"), "report": ("evaluate", "report")},
}
# What changes where the config has a section sft.
MODEL = {"model": ("sft", "model")}
EDGES_SFT = {
    "sft": {"demonstrations": ("prepare", "demonstrations")},
    **{stage: EDGES[stage] | MODEL for stage in ("reward", "sample", "ppo", "evaluate")},
    "export": EDGES["export"] | {"base": ("sft", "model")},
}
TYPES = {
    "model": "system.Model",
    "base": "system.Model",
    "demonstrations": "system.Dataset",
    "preferences": "system.Dataset",
    "prompts": "system.Dataset",
    "candidates": "system.Dataset",
    "reward_model": "system.Model",
    "policy": "system.Model",
    "samples": "system.Dataset",
    "report": "system.HTML",
    "data_report": "system.Artifact",
}


def tiny(sft: dict[str, Any] | None = None, **platform: Any) -> PodiumConfig:
    """Return a config with files in a bucket."""
    files = ("preferences", "prompts", "demonstrations")
    return PodiumConfig.model_validate(
        {
            "model": {"name_or_path": "gs://bucket/model"},
            "data": {name: f"gs://bucket/{name}.jsonl" for name in files},
            "sft": sft,
            "sample": {"max_prompts": 3},
            "reward": {"max_steps": 4, "lora": {}},
            "ppo": {"kl_target": 5},
            "evaluation": {"confidence": 0.9},
            "export": {"dtype": "bfloat16"},
            "platform": platform,
        }
    )


def spec(target: Any, sft: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the first document of a compiled pipeline."""
    return next(yaml.safe_load_all(compile_text(tiny(sft), target)))


def tasks(target: str) -> dict[str, Any]:
    """Return the tasks of a compiled pipeline by name."""
    return spec(target)["root"]["dag"]["tasks"]


@pytest.mark.parametrize("path", sorted(generated()), ids=lambda path: path.name)
def test_kept_files_are_what_the_sources_say(path: Path) -> None:
    assert path.read_text(encoding="utf-8") == generated()[path], "run make specs and look at the difference"


SFT = pytest.mark.parametrize("sft", [None, {"lora": {}}], ids=["plain", "sft"])


@SFT
@pytest.mark.parametrize("target", TARGETS)
def test_strict_parse_knows_every_field(target: Any, sft: Any) -> None:
    parsed = json_format.ParseDict(spec(target, sft), pipeline_spec_pb2.PipelineSpec())
    executors = json_format.MessageToDict(parsed.deployment_spec)["executors"]
    for executor in executors.values():
        json_format.ParseDict(executor, pipeline_spec_pb2.PipelineDeploymentConfig.ExecutorSpec())
    assert sorted(executors) == sorted(f"exec-{stage}" for stage in stages_of(tiny(sft)))


def test_platform_spec_of_kubeflow_is_strict_too() -> None:
    _, platform = yaml.safe_load_all((ROOT / "pipelines" / "specs" / "rlhf-kubeflow.yaml").read_text())
    executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    for executor in executors.values():
        json_format.ParseDict(executor, kubernetes_executor_config_pb2.KubernetesExecutorConfig())
    assert executors["exec-ppo"]["nodeSelector"]["labels"] == {
        "cloud.google.com/gke-tpu-accelerator": "tpu-v5-lite-podslice",
        "cloud.google.com/gke-tpu-topology": "2x2",
    }


def test_vertex_is_one_document() -> None:
    config = tiny(resources={"ppo": {"accelerator": "nvidia-l4", "cpu": "8"}})
    assert len(list(yaml.safe_load_all(compile_text(config, "vertex")))) == 1


@SFT
@pytest.mark.parametrize("target", TARGETS)
def test_every_edge_is_a_typed_artifact(target: str, sft: Any) -> None:
    compiled = spec(target, sft)
    edges = EDGES | (EDGES_SFT if sft else {})
    for stage, task in compiled["root"]["dag"]["tasks"].items():
        got = {
            name: (source["taskOutputArtifact"]["producerTask"], source["taskOutputArtifact"]["outputArtifactKey"])
            for name, source in task["inputs"].get("artifacts", {}).items()
        }
        assert got == edges.get(stage, {})
        declared = compiled["components"][f"comp-{stage}"]["inputDefinitions"].get("artifacts", {})
        assert {name: item["artifactType"]["schemaTitle"] for name, item in declared.items() if name in got} == {
            name: TYPES[name] for name in got
        }
        assert all(item.get("isOptional") for name, item in declared.items() if name not in got)


@SFT
@pytest.mark.parametrize("target", TARGETS)
def test_every_declared_input_reaches_an_executor(target: str, sft: Any) -> None:
    compiled = spec(target, sft)
    passed = {
        source["componentInputParameter"]
        for task in compiled["root"]["dag"]["tasks"].values()
        for source in task["inputs"]["parameters"].values()
    }
    assert passed == set(compiled["root"]["inputDefinitions"]["parameters"])
    for name, component in compiled["components"].items():
        inputs = component["inputDefinitions"]
        task = compiled["root"]["dag"]["tasks"][name.removeprefix("comp-")]
        needed = {name for name, port in inputs["parameters"].items() if not port.get("isOptional")}
        assert needed <= set(task["inputs"]["parameters"]) <= set(inputs["parameters"])
        container = compiled["deploymentSpec"]["executors"][component["executorLabel"]]["container"]
        assert container["command"] == ["python", "-m", "podium", name.removeprefix("comp-")]
        assert container["args"] == ["--executor-input", "{{$}}"], "the executor input holds every declared input"


@pytest.mark.parametrize("stage", STAGES)
def test_the_default_of_a_stage_is_its_resolved_config(stage: str) -> None:
    default = spec("local", {"lora": {}})["root"]["inputDefinitions"]["parameters"][stage]["defaultValue"]
    assert PodiumConfig.model_validate(default) == PodiumConfig.model_validate(stage_config(tiny({"lora": {}}), stage))


def test_inputs_that_a_stage_can_do_without_are_optional_in_its_component() -> None:
    """Hold the components to `podium.config.STAGE_TABLE`, which they may not import."""
    for stage, wanted in STAGE_TABLE.items():
        inputs = getattr(podium_components, stage).component_spec.inputs
        artifacts = {name: port.optional for name, port in inputs.items() if "@" in port.type}
        assert artifacts == dict.fromkeys(wanted.inputs, False) | dict.fromkeys(wanted.optional, True)
        outputs = getattr(podium_components, stage).component_spec.outputs
        assert set(outputs) == set(wanted.outputs)


def test_demonstrations_alone_make_no_pipeline() -> None:
    config = PodiumConfig.model_validate({"model": {"name_or_path": "m"}, "data": {"demonstrations": "gs://b/d"}})
    with pytest.raises(UserError, match=r"data\.preferences: no file named; a run trains a reward model on them"):
        compile_text(config, "local")


def test_the_stages_of_a_laptop_run_one_after_another_and_a_cluster_may_run_two_at_once() -> None:
    assert tasks("local")["sample"]["dependentTasks"] == ["prepare", "reward"]
    assert tasks("kubeflow")["sample"]["dependentTasks"] == ["prepare"]


@pytest.mark.parametrize("target", TARGETS)
def test_the_gates_come_last_so_that_a_run_which_they_fail_has_its_model(target: str) -> None:
    found = tasks(target)
    assert set(found["gates"]["dependentTasks"]) == {"evaluate", "export"}
    assert not any("gates" in task.get("dependentTasks", ()) for task in found.values())


def images(config: PodiumConfig) -> set[str]:
    """Return every image that a compiled pipeline names."""
    return set(re.findall(r"image: (\S+)", compile_text(config, "kubeflow")))


def test_the_image_is_this_version_or_what_the_config_says() -> None:
    assert images(tiny()) == {f"podium/trainer:{__version__}"}
    assert images(tiny(image="registry/podium@sha256:0")) == {"registry/podium@sha256:0"}


def test_the_pipeline_root_is_the_target_s_own() -> None:
    config = tiny(kubeflow={"storage": "s3://runs"}, vertex={"staging_bucket": "gs://runs"})
    roots = [yaml.safe_load(compile_text(config, target)).get("defaultPipelineRoot") for target in TARGETS]
    assert roots == [None, "s3://runs", "gs://runs"]


def test_what_only_this_machine_has_is_listed(tmp_path: Path) -> None:
    (tmp_path / "prompts.jsonl").write_text("{}")
    config = PodiumConfig.model_validate(
        {
            "model": {"name_or_path": str(tmp_path)},
            "data": {"preferences": "gs://bucket/a.jsonl", "prompts": f"{tmp_path}/prompts.jsonl"},
        }
    )
    assert local_paths(config) == [f"{tmp_path}/prompts.jsonl", str(tmp_path)]


def nullable(schema: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield name and schema of every field of a JSON Schema that may be null."""
    for part in [schema, *schema["$defs"].values()]:
        for name, field in part.get("properties", {}).items():
            if {"type": "null"} in field.get("anyOf", []):
                yield name, field


def test_null_is_the_default_wherever_it_is_allowed() -> None:
    """Hold the config to what lets `stage_parameter` leave nulls out."""
    fields = dict(nullable(PodiumConfig.model_json_schema()))
    assert "lora" in fields
    assert {name: field["default"] for name, field in fields.items()} == dict.fromkeys(fields)
