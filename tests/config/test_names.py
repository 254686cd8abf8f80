"""Names of other tools, and parameter files of Google's managed RLHF pipeline.

Seen to fail: with one row of `RENAMED` pointing to a field that does not exist; with multipliers taken for learning
rates; with parameters applied over the file's own sections; with defaults noted as if they had been written.
"""

import json
from pathlib import Path

import pytest
import yaml

from podium.config import PodiumConfig, load_config, load_config_data, load_config_text
from podium.config.aliases import RENAMED
from podium.config.explain import paths
from podium.config.foreign import foreign
from podium.config.managed import MANAGED
from podium.errors import UserError

MANAGED_FILE = {
    "large_model_reference": "llama-2-7b",
    "preference_dataset": "gs://bucket/preferences/*.jsonl",
    "prompt_dataset": "gs://bucket/prompts/*.jsonl",
    "eval_dataset": "gs://bucket/eval/*.jsonl",
    "prompt_sequence_length": 300,
    "target_sequence_length": 50,
    "reward_model_learning_rate_multiplier": 2.0,
    "reinforcement_learning_rate_multiplier": 0.2,
    "reward_model_train_steps": 1410,
    "reinforcement_learning_train_steps": 320,
    "kl_coeff": 0.2,
    "instruction": "Summarize in less than 50 words",
    "deploy_model": False,
    "model_display_name": "tuned",
    "project": "my-project",
    "location": "europe-west4",
    "tensorboard_resource_id": "projects/1/tensorboards/2",
    "encryption_spec_key_name": "",
    "accelerator_type": "TPU",
}


def read(data: dict[str, object]) -> tuple[PodiumConfig, list[str]]:
    notices: list[str] = []
    return load_config_data(data, source="managed.json", notices=notices), notices


def test_every_translation_leads_to_a_field() -> None:
    known = set(paths())
    assert set(RENAMED.values()) - known == set()
    assert {target for parameter in MANAGED.values() for target in parameter.targets} - known == set()
    assert set(RENAMED) & known == set()
    assert set(MANAGED) & {path for path in known if "." not in path} == set()


VALUES = {"lora.target_modules": ["q_proj"], "lora": True, "lr_scheduler_type": "cosine", "dtype": "bfloat16"}


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_each_name_of_another_tool_is_read_with_a_notice(old: str, new: str) -> None:
    if old == "eval":
        value: object = {"confidence": 0.9}
    else:
        value = next((value for name, value in VALUES.items() if new.endswith(name)), None)
    value = value if value is not None else "never" if new.endswith("resume") else "some/model" if "model" in new else 1
    data: dict[str, object] = {} if new == "model.name_or_path" else {"model": {"name_or_path": "x"}}
    node: dict[str, object] = data
    *keys, last = old.split(".")
    for key in keys:
        node = node.setdefault(key, {})  # type: ignore[assignment]  # sections are mappings
    node[last] = value if not new.startswith("data.") else 1000
    # The limit between the two lengths holds for aliases too.
    if new == "data.max_prompt_length":
        data["data"] = {last: 100}
    if new == "ppo.kl_horizon":
        data["ppo"] = {last: value, "kl_target": 6.0}
    notices: list[str] = []
    config = load_config_data(data, source="rlhf.yaml", notices=notices)
    assert notices == [f"rlhf.yaml: {old} is read as {new}"]
    found: object = config
    for key in new.split("."):
        found = getattr(found, key)
    assert found != PodiumConfig.model_fields


def test_a_name_keeps_its_line() -> None:
    with pytest.raises(UserError) as caught:
        load_config_text("model: {base_model: x}\nppo:\n  cliprange: wide", source="rlhf.yaml")
    assert str(caught.value) == "rlhf.yaml:3: ppo.clip_range: write a number, not 'wide'"


def test_a_name_and_its_translation_together_are_refused() -> None:
    with pytest.raises(UserError) as caught:
        load_config_text("model: {name_or_path: x}\nppo: {clip_range: 0.2,\n  cliprange: 0.2}", source="rlhf.yaml")
    assert (
        str(caught.value) == "rlhf.yaml:3: ppo.cliprange and ppo.clip_range are the same setting; keep ppo.clip_range"
    )


def test_trl_settings_of_a_reward_run_mean_what_they_mean_there() -> None:
    config, _ = read(
        {
            "model_name_or_path": "x",
            "reward": {
                "use_peft": True,
                "lora_r": 8,
                "lora_alpha": 16,
                "lora_target_modules": "all-linear",
                "resume_from_checkpoint": False,
                "per_device_train_batch_size": 4,
            },
        }
    )
    assert config.reward.lora is not None
    assert (config.reward.lora.r, config.reward.lora.alpha, len(config.reward.lora.target_modules)) == (8, 16.0, 7)
    assert config.reward.resume == "never"
    assert config.reward.per_device_batch_size == 4


def test_use_peft_false_trains_all_weights() -> None:
    assert read({"model_name_or_path": "x", "ppo": {"use_peft": False}})[0].ppo.lora is None


def test_a_penalty_alone_is_subtracted_as_in_trl() -> None:
    config, notices = read({"model": {"name_or_path": "x"}, "ppo": {"missing_eos_penalty": 1.0}})
    assert config.ppo.missing_eos == "subtract"
    assert notices == ["managed.json: ppo.missing_eos_penalty without ppo.missing_eos is read as missing_eos: subtract"]


def test_a_managed_parameter_file_is_accepted_as_it_is() -> None:
    config, notices = read(MANAGED_FILE)
    plain = PodiumConfig.model_validate({"model": {"name_or_path": "x"}})
    assert config.model.name_or_path == "meta-llama/Llama-2-7b-hf"
    assert config.data.preferences[0].path == "gs://bucket/preferences/*.jsonl"
    assert config.data.prompts[0].path == "gs://bucket/prompts/*.jsonl"
    assert config.data.eval_prompts is not None
    assert config.data.eval_prompts[0].path == "gs://bucket/eval/*.jsonl"
    assert (config.data.max_prompt_length, config.data.max_length) == (300, 350)
    assert config.ppo.max_new_tokens == config.sample.max_new_tokens == 50
    assert config.reward.learning_rate == pytest.approx(2.0 * plain.reward.learning_rate)
    assert config.ppo.learning_rate == pytest.approx(0.2 * plain.ppo.learning_rate)
    assert (config.reward.max_steps, config.ppo.max_steps, config.ppo.kl_coef) == (1410, 320, 0.2)
    assert config.data.instruction == "Summarize in less than 50 words"
    vertex = config.platform.vertex
    assert (vertex.project, vertex.region) == ("my-project", "europe-west4")
    assert vertex.encryption_key is None
    # Nothing that was written is passed over in silence.
    for name, value in MANAGED_FILE.items():
        assert value == "" or sum(f": {name} " in notice for notice in notices) == 1, name
    assert sum("has no counterpart here" in notice for notice in notices) == 4
    assert any("batch of 64" in notice for notice in notices)


@pytest.mark.parametrize("suffix", ["json", "yaml"])
def test_a_managed_file_on_disk_may_be_json_or_yaml(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"managed.{suffix}"
    path.write_text(json.dumps(MANAGED_FILE) if suffix == "json" else yaml.safe_dump(MANAGED_FILE))
    assert load_config(path, ["kl_coeff=0.3", "ppo.max_steps=5"]).ppo.kl_coef == 0.3
    assert load_config(path, ["kl_coeff=0.3", "ppo.max_steps=5"]).ppo.max_steps == 5


def test_what_a_managed_file_leaves_out_has_the_managed_defaults() -> None:
    config, notices = read({"large_model_reference": "t5-small", "preference_dataset": "gs://b/p"})
    assert config.model.name_or_path == "google/flan-t5-small"
    assert (config.data.max_prompt_length, config.data.max_length, config.ppo.max_new_tokens) == (512, 576, 64)
    assert (config.reward.max_steps, config.ppo.max_steps, config.ppo.kl_coef) == (1000, 1000, 0.1)
    assert any("defaults hold for prompt_sequence_length 512" in notice for notice in notices)


def test_our_own_sections_go_before_managed_parameters_and_say_so() -> None:
    config, notices = read(
        MANAGED_FILE | {"large_model_reference": "text-bison@001", "model": {"name_or_path": "mine"}}
    )
    assert config.model.name_or_path == "mine"
    assert "managed.json: large_model_reference is not used: model.name_or_path is set beside it" in notices


@pytest.mark.parametrize("reference", ["text-bison@001", "text-bison@002", "chat-bison", "TEXT_BISON_002", "bison@001"])
def test_models_that_were_never_public_are_refused_with_open_ones_named(reference: str) -> None:
    with pytest.raises(
        UserError, match=r"never were|were never public; name an open model, such as meta-llama/"
    ) as caught:
        read(MANAGED_FILE | {"large_model_reference": reference})
    assert reference in str(caught.value)


@pytest.mark.parametrize("reference", ["some-org/bison-7b", "/models/mine", "gs://bucket/model"])
def test_other_references_are_paths_or_names(reference: str) -> None:
    assert read(MANAGED_FILE | {"large_model_reference": reference})[0].model.name_or_path == reference


def test_a_multiplier_that_is_no_number_is_refused_by_its_own_name() -> None:
    with pytest.raises(
        UserError, match=r"managed\.json: reward_model_learning_rate_multiplier: write a number, not 'x'"
    ):
        read(MANAGED_FILE | {"reward_model_learning_rate_multiplier": "x"})


def test_a_managed_name_outside_a_managed_file_is_an_unknown_key() -> None:
    with pytest.raises(UserError, match=r"instruction: unknown key; did you mean 'data\.instruction'"):
        read({"model": {"name_or_path": "x"}, "instruction": "Be kind"})


@pytest.mark.parametrize(("prompt", "response"), [(512, 64), (512.0, 64.0), ("512", "64"), ("5.12e2", 64)])
def test_lengths_that_came_through_a_pipeline_are_added_up(prompt: object, response: object) -> None:
    config, _ = read(MANAGED_FILE | {"prompt_sequence_length": prompt, "target_sequence_length": response})
    assert (config.data.max_prompt_length, config.data.max_length, config.ppo.max_new_tokens) == (512, 576, 64)


@pytest.mark.parametrize("name", ["prompt_sequence_length", "target_sequence_length", "reward_model_train_steps"])
@pytest.mark.parametrize("value", ["long", 51.5, True, 0, [512]])
def test_a_managed_number_is_refused_by_its_own_name(name: str, value: object) -> None:
    with pytest.raises(UserError, match=rf"^managed\.json: {name}: write a whole number more than 0, not ") as caught:
        read(MANAGED_FILE | {name: value})
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("report_to", "does not exist here: each training stage writes TensorBoard event files"),
        ("ppo.report_to", "does not exist here: each training stage writes TensorBoard event files"),
        ("ppo.logging_dir", "does not exist here: each stage keeps its event files"),
        ("dpo", "does not exist here: the algorithm here is PPO"),
        ("grpo", "does not exist here: the algorithm here is PPO"),
        ("deepspeed", "does not exist here: parameters are shared over devices by platform.mesh (fsdp)"),
        ("ppo.bf16", "does not exist here: write model.dtype: bfloat16"),
        ("ppo.use_vllm", "does not exist here: the policy answers in the training process itself"),
    ],
)
def test_a_name_of_the_field_that_does_not_exist_here_is_no_misspelling(key: str, said: str) -> None:
    section, _, name = key.rpartition(".")
    value: dict[str, object] = {section: {name: 1}} if section else {name: 1}
    with pytest.raises(UserError) as caught:
        read({"model": {"name_or_path": "x"}} | value)
    assert str(caught.value).startswith(f"managed.json: {key}: {said}")


def test_no_name_is_foreign_and_known() -> None:
    known = {name for path in [*paths(), *RENAMED] for name in path.split(".")}
    assert not {name for name in known | set(MANAGED) if foreign(name)}
