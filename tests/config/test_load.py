"""Reading configurations: each mistake is one line with place, key and remedy.

Seen to fail: without keeping places through a renaming, the alias case names no line; without `_not_bool`, `true`
passes as 1; without the duplicate check, the last of two keys wins; with paths resolved before overrides, the override
case starts from the file's folder.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from podium.config import STAGES, PodiumConfig, load_config, load_config_data, load_config_text, stage_config, stages_of
from podium.config.explain import model_at, paths
from podium.errors import UserError

SMALLEST: dict[str, Any] = {"model": {"name_or_path": "some/model"}}


def message(text: str, *overrides: str) -> str:
    with pytest.raises(UserError) as caught:
        load_config_text(text, source="rlhf.yaml", overrides=overrides)
    return str(caught.value)


def with_model(text: str) -> str:
    """Put a model before the text: what is under test starts on line 2."""
    return "model: {name_or_path: some/model}\n" + text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("reward: {learing_rate: 1}", "rlhf.yaml:2: reward.learing_rate: unknown key; did you mean 'learning_rate'?"),
        ("ppo:\n  lr-scheduler-type: linear", "rlhf.yaml:3: ppo.lr-scheduler-type: unknown key; did you mean 'lr_sche"),
        ("kl_coef: 0.1", "rlhf.yaml:2: kl_coef: unknown key; did you mean 'ppo.kl_coef'?"),
        ("cliprange: 0.1", "rlhf.yaml:2: cliprange: unknown key; did you mean 'ppo.clip_range'?"),
        (
            "learning_rate: 1",
            "did you mean 'ppo.critic.learning_rate' or 'ppo.learning_rate' or 'reward.learning_rate'?",
        ),
        ("export: {xyzzy: 1}", "rlhf.yaml:2: export.xyzzy: unknown key; known keys here: format, dtype, verify"),
        ("sft: {max_step: 3}", "rlhf.yaml:2: sft.max_step: unknown key; did you mean 'max_steps'?"),
        ("sft: true", "rlhf.yaml:2: sft: write a mapping of keys, not true"),
        (
            "sft: {}\ndata: {preferences: a.jsonl}",
            "rlhf.yaml:3: data.demonstrations: sft learns from them",
        ),
        ("reward: {model: {dtype: float32}}", "rlhf.yaml:2: reward.model.name_or_path: is missing; write name_or_path"),
        ("rate: {}", "rlhf.yaml:2: rate: unknown key; rating candidates comes with a later version"),
        ("ppo: {max_steps: many}", "rlhf.yaml:2: ppo.max_steps: write a whole number, not 'many'"),
        ("ppo: {max_steps: 1.5}", "ppo.max_steps: write a whole number, not 1.5"),
        ("ppo: {max_steps: true}", "ppo.max_steps: write a number, not true"),
        ("ppo: {max_steps: yes}", "ppo.max_steps: write a number, not yes"),
        ("ppo: {max_steps: 1.5e-1}", "ppo.max_steps: write a whole number, not 0.15"),
        ("ppo: {max_steps: 1e-3}", "ppo.max_steps: write a whole number, not '1e-3'"),
        ("ppo: {max_steps: 1e99}", "ppo.max_steps: write a whole number up to 9007199254740992"),
        ("ppo: {max_steps: 1e999}", "ppo.max_steps: write a whole number, not '1e999'"),
        ("ppo: {max_steps: 0o17}", "ppo.max_steps: write a whole number, not '0o17'"),
        (
            "data: {instruction: no}",
            "data.instruction: write text, in quotes where it looks like something else, not no",
        ),
        (
            "data: {instruction: 1.10}",
            "data.instruction: write text, in quotes where it looks like something else, not 1.1",
        ),
        ("sample: {split: off}", "sample.split: write one of eval, train; not off"),
        ("data: {preferences: ~}", "data.preferences: write a list, not ~"),
        ("ppo: {kl_coef: .inf}", "ppo.kl_coef: write a finite number, not inf"),
        ("ppo: {max_steps: 0}", "ppo.max_steps: write a number more than 0, not 0"),
        ("ppo: {max_steps: null}", "ppo.max_steps: write a whole number, not null"),
        ("ppo: {temperature: 0}", "ppo.temperature: write a number more than 0, not 0"),
        ("ppo: {learning_rate: .nan}", "ppo.learning_rate: write a finite number, not nan"),
        ("ppo: {whiten_rewards: maybe}", "ppo.whiten_rewards: write true or false, not 'maybe'"),
        ("reward: {warmup_ratio: 1.2}", "reward.warmup_ratio: write a number at most 1, not 1.2"),
        ("reward: {loss: pairwize}", "write one of pairwise, plackett_luce; not 'pairwize'; did you mean 'pairwise'?"),
        ("reward: 7", "rlhf.yaml:2: reward: write a mapping of keys, not 7"),
        ("data: {preferences: 7}", "data.preferences: write a list, not 7"),
        ("data: {preferences: [a.jsonl, {pth: b}]}", "data.preferences.1.pth: unknown key; did you mean 'path'?"),
        ("data:\n  prompts:\n  - a.jsonl\n  - 7", "rlhf.yaml:5: data.prompts.1: write a mapping of keys, not 7"),
        (
            "data: {preferences: [a.jsonl, 'http://h/b.jsonl']}",
            "rlhf.yaml:2: data.preferences.1: addresses of http:// are not read; write a path on this machine, or a gs://",
        ),
        ("data: {max_length: 100}", "rlhf.yaml:2: data.max_length: 100 leaves no room for a response after max_prompt"),
        (
            "ppo: {per_device_batch_size: 6, num_mini_batches: 4}",
            "ppo.per_device_batch_size: 6 prompts cannot be shared",
        ),
        ("ppo: {per_device_batch_size: 6, gradient_accumulation_steps: 4}", "write a multiple of 4"),
        ("reward: {global_batch_size: 8, gradient_accumulation_steps: 2}", "follows from global_batch_size"),
        ("ppo: {kl_horizon: 5}", "ppo.kl_horizon: has no effect while kl_target is null"),
        ("ppo: {kl_target: 6, kl_coef: 0}", "ppo.kl_coef: 0 can never adapt to kl_target"),
        ("ppo: {kl_target: 6, kl_stop: 5}", "ppo.kl_stop: 5.0 would stop the run at or below kl_target 6.0"),
        (
            "ppo: {missing_eos: null, missing_eos_penalty: 3}",
            "ppo.missing_eos_penalty: has no effect while missing_eos",
        ),
        ("ppo:\n  critic: {kind: shared,\n    learning_rate: 1e-4}", "rlhf.yaml:4: ppo.critic.learning_rate: a shared"),
        ("reward: {lora: {target_modules: []}}", "reward.lora.target_modules: name at least one projection"),
        (
            "reward: {lora: {target_modules: [q_proj, q_proj]}}",
            "reward.lora.target_modules: a projection is named twice",
        ),
        ("sample: {temperature: 0, num_generations: 2}", "sample.num_generations: temperature 0 gives the same"),
        ("ppo: {}\nexport: {format: adapter}", "rlhf.yaml:3: export.format: adapter needs ppo.lora"),
        ("platform: {mesh: {data: -1}}", "platform.mesh.fsdp: data and fsdp are both -1"),
        ("platform: {mesh: {data: 0}}", "platform.mesh.data: an axis of 0 devices"),
        ("platform: {mesh: {slice: 0}}", "platform.mesh.slice: an axis of 0 devices"),
        ("platform: {mesh: best}", "platform.mesh: write auto, or devices along axes, such as {data: 1, fsdp: -1"),
        ("platform: {mesh: {rollout: {tensor: 0}}}", "platform.mesh.rollout.tensor: write a number more than 0"),
        ("platform: {mesh: {data: -2}}", "platform.mesh.data: write a number at least -1, not -2"),
        ("platform: {resources: {ppoo: {}}}", "platform.resources.ppoo: write one of prepare, sft, reward"),
        ("platform: {resources: {ppo: {cpus: 4}}}", "platform.resources.ppo.cpus: unknown key; did you mean 'cpu'?"),
        ("platform: {resources: {ppo: {memory: lots}}}", "platform.resources.ppo.memory: "),
        ("platform: {resources: {ppo: {count: 4}}}", "platform.resources.ppo.accelerator: count and topology need"),
        ("platform: {resources: {ppo: {accelerator: v5p, topology: 4*4}}}", "'4*4' is not a shape; write 2x2"),
        ("platform: {vertex: {staging_bucket: bucket}}", "platform.vertex.staging_bucket: 'bucket' is no bucket"),
    ],
)
def test_a_mistake_names_place_key_and_remedy(text: str, expected: str) -> None:
    said = message(with_model(text))
    assert expected in said
    assert len(said.splitlines()) == 1
    assert len(said) < 250


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "rlhf.yaml: is empty; write at least model: {name_or_path: ...}"),
        ("# only a comment\n", "rlhf.yaml: is empty"),
        ("- a\n- b", "rlhf.yaml: holds a list, not a mapping"),
        ("word", "rlhf.yaml: holds 'word', not a mapping"),
        ("seed: 1", "rlhf.yaml: model: is missing; write model: {name_or_path: ...}"),
        ("model: {}", "rlhf.yaml:1: model.name_or_path: is missing; write name_or_path: ..."),
        ("model: {name_or_path: ''}", "rlhf.yaml:1: model.name_or_path: write a text that is not empty, not ''"),
        (
            "model: {name_or_path: 7}",
            "rlhf.yaml:1: model.name_or_path: write text, in quotes where it looks like something else",
        ),
        ("seed: 1\nmodel: [a, b", "rlhf.yaml:2: not valid YAML: "),
        ("model:\n\tname_or_path: x", "rlhf.yaml:2: a tab in the indentation; write spaces"),
        ("model: {name_or_path: x}\nseed: 1\nseed: 2", "rlhf.yaml:3: seed: given twice, first on line 2; keep one"),
        ("model:\n  name_or_path: x\n  name_or_path: y", "rlhf.yaml:3: model.name_or_path: given twice"),
        ('{"model": {"name_or_path": "x"},\n "seed": 1, "seed": 2}', "rlhf.yaml:2: seed: given twice"),
        ("model: {name_or_path: x, 7: y}", "rlhf.yaml:1: model.7: keys are text; write '7' in quotes"),
        ("model: {name_or_path: x}\n? [a]\n: b", "rlhf.yaml:2: a list or mapping: keys are text"),
        ("model: !!python/object:os.system x", "rlhf.yaml:1: "),
        ("a: 1\n---\nb: 2", "rlhf.yaml:2: not valid YAML: but found another document"),
        ("model: &a [*a]", "rlhf.yaml:1: an alias contains itself"),
        ("[" * 5000, "rlhf.yaml"),
        ("seed: 010", "rlhf.yaml:1: seed: YAML reads 010 as 8; write 10 or 8, or '010' in quotes for text"),
        ("seed: -0_17", "rlhf.yaml:1: seed: YAML reads -0_17 as -15; write -17 or -15"),
        ("ppo: {max_steps: 1:30}", "rlhf.yaml:1: ppo.max_steps: YAML reads 1:30 as 90; write a number such as 90"),
        ("ppo: {kl_coef: 1:30.5}", "rlhf.yaml:1: ppo.kl_coef: YAML reads 1:30.5 as 90.5; write a number such as 90.5"),
        ("model: {revision: 0123456}", "rlhf.yaml:1: model.revision: YAML reads 0123456 as 42798; write 123456 or"),
        (f"seed: 1{'0' * 5000}", "rlhf.yaml:1: seed: '1000000000"),
        ("model: {<<: [1]}", "rlhf.yaml:1: model.<<: merges a mapping"),
        ("a: &a {x: 1}\nmodel: {<<: *a, <<: *a}", "rlhf.yaml:2: model.<<: given twice"),
        ("a: &a {<<: *a}", "rlhf.yaml: is nested too deeply or contains itself"),
        ("model: !!timestamp 2024-01-01", "rlhf.yaml:1: the tag 'tag:yaml.org,2002:timestamp' is not allowed"),
        ("model: !!set {x}", "rlhf.yaml:1: the tag 'tag:yaml.org,2002:set' is not allowed"),
        ('{"a":' * 5000, "rlhf.yaml"),
        ("a: " + "{b: " * 120 + "x" + "}" * 120, "rlhf.yaml:1: an alias contains itself or too much"),
        ("x" * 2_000_000, "rlhf.yaml: is longer than 1,048,576 characters"),
        ('model: {name_or_path: "a\\0b"}', "rlhf.yaml:1: model.name_or_path: holds the character U+0000"),
        ('{"model": {"name_or_path": "\\ud800"}}', "rlhf.yaml:1: model.name_or_path: holds the character U+D800"),
        ("model: \x07", "rlhf.yaml: is not YAML: "),
    ],
)
def test_a_file_that_is_no_configuration_is_refused_in_one_line(text: str, expected: str) -> None:
    said = message(text)
    assert said.startswith(expected)
    assert len(said.splitlines()) == 1


def test_aliases_that_multiply_each_other_are_refused_before_memory_is_gone() -> None:
    lines = ["a: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    assert "an alias contains itself or too much" in message("\n".join(lines))


def test_the_first_mistakes_are_shown_and_the_others_counted() -> None:
    said = message(with_model("ppo:\n" + "".join(f"  xyzzy{index}: 1\n" for index in range(8))))
    lines = said.splitlines()
    assert [line.split(":")[1] for line in lines[:-1]] == ["3", "4", "5", "6", "7"]
    assert lines[-1] == "and 3 more"


def test_a_misspelt_required_key_is_one_mistake() -> None:
    assert message("model: {name_or_pat: x}") == (
        "rlhf.yaml:1: model.name_or_pat: unknown key; did you mean 'name_or_path'?"
    )


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda path: None, "no such file"),
        (lambda path: path.mkdir(), "is a folder"),
        (lambda path: path.write_bytes(b"seed: \xff\xfe"), "is not UTF-8 text (byte 6)"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, make: Any, expected: str) -> None:
    path = tmp_path / "rlhf.yaml"
    make(path)
    with pytest.raises(UserError) as caught:
        load_config(path)
    assert str(caught.value).startswith(f"{path}: {expected}")


# Where an unknown key can stand: the top and every section, through lists and stage names.
SECTIONS = sorted(
    {path.rpartition(".")[0] for path in paths()} | {"data.prompts.0", "platform.resources.ppo", "reward.lora"}
)


@given(
    section=st.sampled_from(SECTIONS),
    key=st.text("abcdefghijklmnopqrstuvwxyz_", min_size=1, max_size=12),
    blank_lines=st.integers(0, 3),
)
def test_an_unknown_key_anywhere_is_reported_with_its_path_and_line(section: str, key: str, blank_lines: int) -> None:
    keys = [int(part) if part.isdecimal() else part for part in section.split(".") if part]
    known = model_at(tuple(keys))
    assert known is not None
    key = f"zz{key}"
    inner: Any = {key: 1} if section != "model" else {"name_or_path": "x", key: 1}
    for part in reversed(keys):
        inner = [inner] if isinstance(part, int) else {part: inner}
    data = inner if section.startswith("model") else SMALLEST | inner
    text = "\n" * blank_lines + yaml.safe_dump(data, sort_keys=False)
    line = next(number for number, line in enumerate(text.splitlines(), 1) if key in line)
    dotted = ".".join(str(part) for part in [*keys, key])
    first = message(text).splitlines()
    assert any(said.startswith(f"rlhf.yaml:{line}: {dotted}: unknown key; ") for said in first)


SIZES = st.integers(1, 64)
MESHES = st.fixed_dictionaries(
    {},
    optional={
        "slice": st.just(-1) | SIZES,
        "data": SIZES,
        "fsdp": st.just(-1) | SIZES,
        "tensor": SIZES,
        "rollout": st.none() | st.fixed_dictionaries({}, optional={"data": st.just(-1) | SIZES, "tensor": SIZES}),
    },
)
VALUES = st.fixed_dictionaries(
    {"model": st.fixed_dictionaries({"name_or_path": st.text("abc/", min_size=1), "revision": st.none() | st.text()})},
    optional={
        "seed": st.integers(0, 2**32 - 1),
        "data": st.fixed_dictionaries(
            {"demonstrations": st.just("d.jsonl")},  # without them, a run with an sft section is refused
            optional={
                "preferences": st.lists(st.text("abc.", min_size=1), max_size=2),
                "eval_prompts": st.none() | st.text("abc.", min_size=1),
                "eval_fraction": st.floats(0.01, 0.99),
                "instruction": st.none() | st.text(),
            },
        ),
        "reward": st.fixed_dictionaries(
            {},
            optional={
                "lora": st.none() | st.fixed_dictionaries({}, optional={"r": st.integers(1, 64)}),
                "max_steps": st.none() | st.integers(1, 100),
                "learning_rate": st.floats(1e-12, 1, exclude_min=True),
            },
        ),
        "sft": st.none()
        | st.fixed_dictionaries({}, optional={"lora": st.none() | st.just({}), "packing": st.booleans()}),
        "ppo": st.fixed_dictionaries(
            {}, optional={"kl_target": st.none() | st.floats(0.1, 10), "gamma": st.floats(0, 1)}
        ),
        "platform": st.fixed_dictionaries({}, optional={"mesh": st.just("auto") | MESHES}),
    },
)


@given(data=VALUES, stage=st.sampled_from(STAGES))
def test_a_stage_reads_back_exactly_its_part(data: dict[str, Any], stage: str) -> None:
    config = load_config_data(data, source="test")
    part = stage_config(config, stage)
    # Through JSON, as a pipeline parameter goes; and without nulls, which KFP cannot carry.
    again = load_config_data(json.loads(json.dumps(part)), source="test")
    assert stage_config(again, stage) == part
    for name in part:
        if name not in {"data", "platform"}:
            assert getattr(again, name) == getattr(config, name)
    assert again.data.max_length == config.data.max_length
    assert stage != "prepare" or again.data == config.data


@given(data=VALUES)
def test_the_whole_config_written_out_is_the_same_config(data: dict[str, Any]) -> None:
    config = load_config_data(data, source="test")
    written = yaml.safe_dump(config.model_dump(mode="json"), allow_unicode=True)
    assert load_config_text(written) == config


def test_every_value_that_may_be_null_is_null_by_default() -> None:
    # Pipelines leave nulls out: KFP has none inside a dict parameter.
    for path in paths():
        *keys, name = path.split(".")
        model = model_at(tuple(keys))
        assert model is not None
        field = model.model_fields[name]
        if type(None) in getattr(field.annotation, "__args__", ()):
            assert field.default is None, path


def test_a_stage_sees_neither_files_nor_places_that_it_has_no_use_for() -> None:
    config = load_config_data(
        SMALLEST | {"data": {"preferences": "/x.jsonl"}, "platform": {"target": "vertex", "mesh": {"tensor": 2}}},
        source="test",
    )
    parts = {stage: stage_config(config, stage) for stage in STAGES}
    assert {stage: set(part) - {"seed", "model"} for stage, part in parts.items()} == {
        "prepare": {"data"},
        "sft": {"data", "sft", "platform"},
        "reward": {"data", "reward", "ppo", "platform"},
        "sample": {"data", "sample", "platform"},
        "ppo": {"data", "ppo", "platform"},
        "evaluate": {"data", "sample", "ppo", "evaluation", "platform"},
        "export": {"export"},
        "gates": {"evaluation"},
    }
    assert parts["reward"]["ppo"] == {"max_new_tokens": 64}, "the rest of ppo would make reward run again for nothing"
    limits = {"start_timeout": 300.0, "heartbeat_timeout": 100, "step_timeout": None, "compilation_cache": "auto"}
    mesh = {"slice": -1, "data": 1, "fsdp": -1, "tensor": 2, "rollout": None}
    assert parts["ppo"]["platform"] == {"mesh": mesh} | limits
    assert parts["prepare"]["data"]["preferences"] == [{"path": "/x.jsonl", "format": "auto"}]
    assert "preferences" not in parts["ppo"]["data"]
    # A run that is started again with other consequences of failed gates repeats no evaluation.
    assert "on_failure" not in parts["evaluate"]["evaluation"]["gates"]
    assert parts["gates"]["evaluation"] == {"gates": {"on_failure": "fail"}}


def test_numbers_that_yaml_takes_for_text_are_numbers() -> None:
    config = load_config_text(
        with_model("reward: {learning_rate: 1e-5}\nppo: {kl_horizon: 1e4, learning_rate: '3e-6'}")
    )
    assert config.reward.learning_rate == 1e-5
    assert config.ppo.kl_horizon == 10_000
    assert config.ppo.learning_rate == 3e-6


def test_json_with_tabs_and_characters_outside_the_basic_plane_is_read_as_json() -> None:
    text = json.dumps(SMALLEST | {"data": {"instruction": "kind 😀"}}, indent="\t")
    assert "\\ud83d" in text
    assert load_config_text(text).data.instruction == "kind 😀"


def test_words_that_yaml_takes_for_dates_or_powers_are_what_stands_there() -> None:
    config = load_config_text("model: {name_or_path: x, revision: 2024-01-01}\nreward: {max_steps: 1e3}\nseed: 1_000")
    assert (config.model.revision, config.reward.max_steps, config.seed) == ("2024-01-01", 1000, 1000)
    assert load_config_text("\ufeffmodel: {name_or_path: 2026-13-45}").model.name_or_path == "2026-13-45"


def test_a_mistake_beside_a_merge_key_is_reported_on_its_own_line() -> None:
    text = with_model(
        "reward: &r\n  learning_rate: 1.0e-4\n  lora: {r: 4}\nppo:\n  learning_rate: -5\n  <<: *r\n  lora: {r: 0}"
    )
    said = message(text).splitlines()
    assert [line.split(": ")[:2] for line in said] == [
        ["rlhf.yaml:6", "ppo.learning_rate"],
        ["rlhf.yaml:8", "ppo.lora.r"],
    ]
    merged = message(with_model("reward: &r\n  learning_rate: -1\nppo:\n  <<: [*r]"))
    assert [line.split(": ")[:2] for line in merged.splitlines()] == [
        ["rlhf.yaml:3", "reward.learning_rate"],
        ["rlhf.yaml:3", "ppo.learning_rate"],
    ]
    first_wins = "a: &a {r: 1}\nb: &b {r: 2}\nreward: {lora: {<<: [*a, *b]}}"
    with pytest.raises(UserError, match="a: unknown key"):
        load_config_text(with_model(first_wins))


def test_an_alias_is_a_copy() -> None:
    # One object in two places would take an override of one for both.
    text = with_model("reward: {lora: &l {r: 4}}\nppo: {lora: *l}")
    config = load_config_text(text, overrides=["ppo.lora.r=2"])
    assert config.reward.lora is not None
    assert config.ppo.lora is not None
    assert (config.reward.lora.r, config.ppo.lora.r) == (4, 2)


def test_merge_keys_and_anchors_are_yaml_that_works() -> None:
    text = with_model("reward: &shared {learning_rate: 2e-5, save_steps: 7}\nppo: {<<: *shared, save_steps: 9}")
    config = load_config_text(text)
    assert (config.ppo.learning_rate, config.ppo.save_steps) == (2e-5, 9)


def test_a_source_is_a_path_a_mapping_or_a_list_of_either(tmp_path: Path) -> None:
    (tmp_path / "rlhf.yaml").write_text(
        with_model(
            "data:\n  preferences: a.jsonl\n  prompts: [b.jsonl, {path: gs://bucket/c.jsonl, format: hh}]\n"
            "  eval_prompts: {path: /abs/../d.jsonl}\n"
        )
    )
    data = load_config(tmp_path / "rlhf.yaml").data
    assert [source.path for source in data.preferences] == [str(tmp_path / "a.jsonl")]
    assert [(source.path, source.format) for source in data.prompts] == [
        (str(tmp_path / "b.jsonl"), "auto"),
        ("gs://bucket/c.jsonl", "hh"),
    ]
    assert data.eval_prompts is not None
    assert data.eval_prompts[0].path == "/d.jsonl"


@pytest.mark.parametrize(
    ("second", "override"),
    [("b.jsonl", "data.preferences.1=x.jsonl"), ("{path: b.jsonl}", "data.preferences.1.path=x.jsonl")],
)
def test_paths_start_from_whoever_named_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, second: str, override: str
) -> None:
    folder, current = tmp_path / "file", tmp_path / "here"
    folder.mkdir()
    current.mkdir()
    (folder / "rlhf.yaml").write_text(with_model(f"data: {{preferences: [a.jsonl, {second}], prompts: c.jsonl}}"))
    monkeypatch.chdir(current)
    data = load_config("../file/rlhf.yaml", [override]).data
    assert [source.path for source in data.preferences] == [str(folder / "a.jsonl"), str(current / "x.jsonl")]
    assert data.prompts[0].path == str(folder / "c.jsonl")


def test_a_model_is_a_path_only_where_something_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models" / "mine").mkdir(parents=True)
    for name, expected in {
        "models/mine": str(tmp_path / "models" / "mine"),
        "org/name": "org/name",
        "./absent": str(tmp_path / "absent"),
        "gs://bucket/model": "gs://bucket/model",
    }.items():
        named = f"{{name_or_path: {name}}}"
        (tmp_path / "rlhf.yaml").write_text(f"model: {named}\nreward: {{model: {named}}}")
        config = load_config("rlhf.yaml")
        assert config.reward.model is not None
        assert config.model.name_or_path == config.reward.model.name_or_path == expected


def test_the_folder_of_compiled_programs_is_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, expected in {"programs": str(tmp_path / "programs"), "gs://b/p": "gs://b/p", "none": "none"}.items():
        (tmp_path / "rlhf.yaml").write_text(with_model(f"platform: {{compilation_cache: {name}}}"))
        assert load_config("rlhf.yaml").platform.compilation_cache == expected


def test_fine_tuning_is_a_stage_where_it_has_a_section() -> None:
    without, with_it = (load_config_data(SMALLEST | more, source="test") for more in ({}, {"sft": {}}))
    assert stages_of(with_it) == STAGES
    assert stages_of(without) == tuple(stage for stage in STAGES if stage != "sft")


def test_a_config_is_frozen_and_its_input_untouched() -> None:
    data = {"model": {"model_name_or_path": "x"}, "ppo": {"cliprange": 0.3}}
    config = load_config_data(data, source="test")
    assert data == {"model": {"model_name_or_path": "x"}, "ppo": {"cliprange": 0.3}}
    with pytest.raises(Exception, match="frozen"):
        config.seed = 3  # type: ignore[misc]  # the type checker is right: this must not work
    assert isinstance(config, PodiumConfig)
