"""The commented config that `podium init` writes: it is valid, and each comment in it is a default."""

import re

import yaml

from podium.config import PodiumConfig, load_config_text
from podium.config.explain import paths
from podium.config.template import commented_config

TEXT = commented_config()
# A value in a comment; prose has a blank behind its #.
COMMENTED = re.compile(r"^( *)#(?=\w)", re.MULTILINE)


def test_it_is_valid_and_sets_nothing_but_the_paths() -> None:
    config = load_config_text(TEXT)
    assert yaml.safe_load(TEXT) == {
        "model": {"name_or_path": "models/my-model"},
        "data": {"preferences": "pairs.jsonl", "prompts": "prompts.jsonl"},
    }
    assert config.ppo == PodiumConfig.model_validate({"model": {"name_or_path": "m"}}).ppo


def test_every_comment_is_a_default_when_its_mark_is_taken_away() -> None:
    text = COMMENTED.sub(r"\1", TEXT).replace("name_or_path: ...", "name_or_path: other")
    written = yaml.safe_load(text)
    defaults = PodiumConfig.model_validate({"model": {"name_or_path": "m"}}).model_dump(mode="json")
    written["data"]["demonstrations"] = "d.jsonl"  # which the section sft, now there, learns from
    config = load_config_text(yaml.safe_dump(written)).model_dump(mode="json")
    for section, values in defaults.items():
        for name, value in (
            values.items() if section not in ("model", "data", "sft") and isinstance(values, dict) else ()
        ):
            # What is absent by default is there now, with its own defaults.
            if isinstance(value, dict):
                value = {key: inner for key, inner in value.items() if inner is not None}
                assert value.items() <= config[section][name].items(), (section, name)
            elif value is not None:
                assert config[section][name] == value, (section, name)
    assert config["seed"] == 0
    assert config["data"]["max_length"] == defaults["data"]["max_length"]


def test_every_field_is_in_it_with_its_description() -> None:
    prose = " ".join(" ".join(line.strip().removeprefix("#").split()) for line in TEXT.splitlines())
    for path in paths():
        if path.count(".") < 2:  # below that, lists: their items are written in docs/config.md
            assert re.search(rf"^ *#?{path.rpartition('.')[2]}:", TEXT, re.MULTILINE), path
    for name, field in PodiumConfig.model_fields.items():
        assert str(field.description) in prose, name


def test_lines_fit_a_page() -> None:
    assert max(map(len, TEXT.splitlines())) <= 100
