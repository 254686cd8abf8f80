"""What a run on this machine would fail on is said before it, with file, line and key."""

from pathlib import Path

import pytest

from podium.config import load_config
from podium.config.accelerators import ACCELERATORS
from podium.errors import UserError


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """Return a folder with a data file and what passes for a model."""
    (tmp_path / "a.jsonl").touch()
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "model.safetensors").touch()
    (tmp_path / "m" / "config.json").write_text('{"model_type": "llama"}')
    (tmp_path / "rlhf.yaml").write_text("model: {name_or_path: ./m}\ndata:\n  preferences: a.jsonl\n")
    return tmp_path


def refused(folder: Path, *overrides: str) -> str:
    with pytest.raises(UserError) as caught:
        load_config(folder / "rlhf.yaml", overrides, look_for="target")
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 400
    return str(caught.value)


def test_what_is_here_is_taken(here: Path) -> None:
    notices: list[str] = []
    load_config(here / "rlhf.yaml", [f"data.prompts={here}/*.jsonl"], notices, look_for="target")
    assert notices == []


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("model: {name_or_path: ./m}\ndata:\n  preferences: b.jsonl", ":3: data.preferences: {}/b.jsonl: no such file"),
        (
            "model: {name_or_path: ./m}\ndata:\n  prompts: [a.jsonl,\n b.jsonl]",
            ":4: data.prompts.1: {}/b.jsonl: no such",
        ),
        ("model: {name_or_path: ./m}\ndata: {prompts: 'b*.jsonl'}", ":2: data.prompts: {}/b*.jsonl: no file fits"),
        ("model: {name_or_path: ./n}", ":1: model: {}/n: no such model folder here"),
        ("model: {name_or_path: ./a.jsonl}", ":1: model: {}/a.jsonl: is a file; write a model folder"),
        ("model: {name_or_path: .}", ":1: model: {}: has no config.json; write the path of a model folder"),
        ("model: {name_or_path: x}\nreward: {model: {name_or_path: ./n}}", ":2: reward.model: {}/n: no such model"),
        (
            "model: {name_or_path: ~nosuchuser/m}",
            ":1: model.name_or_path: ~nosuchuser/m: no such user; write the path in full",
        ),
        (
            "model: {name_or_path: x}\ndata:\n  prompts: ~nosuchuser/a.jsonl",
            ":3: data.prompts: ~nosuchuser/a.jsonl: no such user; write the path in full",
        ),
        (
            "model: {name_or_path: x}\nplatform: {target: vertex, resources: {ppo: {accelerator: v99}}}",
            ":2: platform.resources.ppo.accelerator: 'v99' is unknown; write one of nvidia-tesla-t4",
        ),
    ],
)
def test_what_is_missing_is_named(here: Path, content: str, expected: str) -> None:
    (here / "rlhf.yaml").write_text(content)
    assert refused(here).startswith(f"{here}/rlhf.yaml{expected.format(here)}")


def test_a_path_that_is_too_long_is_not_there(here: Path) -> None:
    assert "no such file here" in refused(here, f"data.preferences={'x' * 5000}")
    assert "no such model folder here" in refused(here, f"model.name_or_path=/{'x' * 300}")


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ("{", "config.json is not JSON"),
        ("[]", "names no model_type"),
        ("[" * 9999, "is not JSON"),
        ("{}", "no model_type"),
    ],
)
def test_a_model_s_config_that_says_nothing_is_refused(here: Path, config: str, expected: str) -> None:
    (here / "m" / "config.json").write_text(config)
    assert expected in refused(here)


def test_weights_of_another_form_are_refused(here: Path) -> None:
    (here / "m" / "model.safetensors").rename(here / "m" / "pytorch_model.bin")
    assert "has no safetensors" in refused(here)


def test_a_folder_without_weights_is_enough_to_prepare_with(here: Path) -> None:
    (here / "m" / "model.safetensors").unlink()
    (here / "m" / "tokenizer.json").touch()
    notices: list[str] = []
    load_config(here / "rlhf.yaml", [], notices, look_for="target")
    assert [notice for notice in notices if f"{here}/m holds no weights yet; all stages but prepare need" in notice]


def test_config_json_alone_is_enough_to_plan_with_and_not_to_run(here: Path) -> None:
    (here / "m" / "model.safetensors").unlink()
    notices: list[str] = []
    load_config(here / "rlhf.yaml", [], notices, look_for="target")
    assert [notice for notice in notices if f"{here}/m holds config.json alone: enough for podium plan" in notice]
    with pytest.raises(UserError, match="has no safetensors"):
        load_config(here / "rlhf.yaml", [], look_for="here")


def test_what_another_machine_or_the_network_has_is_noted(here: Path) -> None:
    overrides = [
        "model.name_or_path=org/name",
        "data.preferences=[gs://b/a.jsonl, /nowhere.jsonl]",
        "platform.target=vertex",
    ]
    notices: list[str] = []
    load_config(here / "rlhf.yaml", overrides, notices, look_for="target")
    assert [notice.split(" is not ")[0] for notice in notices] == [
        "data.preferences.0.path: gs://b/a.jsonl",
        "data.preferences.1.path: /nowhere.jsonl",
        "model.name_or_path: org/name",
    ]
    with pytest.raises(UserError, match=r"/nowhere\.jsonl: no such file here"):
        load_config(here / "rlhf.yaml", overrides, look_for="here")
    assert "nvidia-l4" in ACCELERATORS
