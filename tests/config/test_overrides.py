"""KEY=VALUE behind a config.

Seen to fail: with the value kept as text, `[a, b]` is one path; without `forget`, a mistake in a replaced section is
reported on the line of the file that it replaced.
"""

import pytest

from podium.config import load_config_text
from podium.errors import UserError

TEXT = """model: {name_or_path: some/model}
data: {prompts: [/a.jsonl, /b.jsonl]}
reward:
  lora: {r: 4}
ppo: {cliprange: 0.3, kl_target: 6.0}
"""


def message(*overrides: str) -> str:
    with pytest.raises(UserError) as caught:
        load_config_text(TEXT, source="rlhf.yaml", overrides=overrides)
    return str(caught.value)


def test_values_are_read_as_yaml_and_replace_the_files() -> None:
    overrides = ["ppo.kl_target=null", "reward.lora={r: 2, alpha: 1e1}", "data.prompts.1=/c.jsonl", "seed=7", "seed=8"]
    config = load_config_text(TEXT, overrides=[*overrides, "evaluation.gates.min_win_rate=0.5", "ppo.lora={}"])
    assert config.ppo.kl_target is None
    assert config.reward.lora is not None
    assert (config.reward.lora.r, config.reward.lora.alpha) == (2, 10.0)
    assert [source.path for source in config.data.prompts] == ["/a.jsonl", "/c.jsonl"]
    assert config.seed == 8
    assert config.evaluation.gates.min_win_rate == 0.5
    assert config.ppo.lora is not None


def test_another_tools_name_replaces_what_the_file_says_under_either_name() -> None:
    notices: list[str] = []
    config = load_config_text(TEXT, overrides=["ppo.eps_clip=0.1", "ppo.lora_r=3"], notices=notices)
    assert config.ppo.clip_range == 0.1
    assert config.ppo.lora is not None
    assert config.ppo.lora.r == 3
    assert "override 'ppo.eps_clip=0.1': ppo.eps_clip is read as ppo.clip_range" in notices


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("Use #tags always", "Use #tags always"),
        ("Answer: briefly", "Answer: briefly"),
        ("*Be* kind", "*Be* kind"),
        ("- no lists", "- no lists"),
        ("a\nb", "a\nb"),
        ("!", "!"),
        ("<<", "<<"),
        ("2024-01-01", "2024-01-01"),
        ("'010'", "010"),
        ('"a # b"', "a # b"),
        ("null", None),
        ("", None),
    ],
)
def test_text_is_taken_as_it_stands(written: str, read: str | None) -> None:
    assert load_config_text(TEXT, overrides=[f"data.instruction={written}"]).data.instruction == read


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("ppo.max_steps", "override 'ppo.max_steps': write KEY=VALUE, such as ppo.kl_coef=0.05"),
        ("=3", "override '=3': write KEY=VALUE"),
        ("ppo..max_steps=3", "override 'ppo..max_steps=3': write KEY=VALUE"),
        ("ppo.max_stps=3", "override 'ppo.max_stps=3': ppo.max_stps: unknown key; did you mean 'max_steps'?"),
        ("ppo.max_steps=x", "override 'ppo.max_steps=x': ppo.max_steps: write a whole number, not 'x'"),
        ("ppo.max_steps=", "override 'ppo.max_steps=': ppo.max_steps: write a whole number, not null"),
        ("ppo.max_steps.deep=3", "override 'ppo.max_steps.deep=3': ppo.max_steps: write a whole number, not a mapping"),
        ("ppo.kl_target.deep=3", "override 'ppo.kl_target.deep=3': ppo.kl_target is 6.0 and has no 'deep' in it"),
        ("data.prompts.2=/c", "override 'data.prompts.2=/c': data.prompts is a list of 2; write an index from 0"),
        ("data.prompts.x=/c", "data.prompts is a list of 2; write an index from 0 in place of 'x'"),
        ("data.prompts.0.path=/c", "data.prompts.0 is '/a.jsonl' and has no 'path' in it"),
        ("reward.lora={r: 0}", "override 'reward.lora={r: 0}': reward.lora.r: write a number more than 0, not 0"),
        ("seed=010", "override 'seed=010': YAML reads 010 as 8; write 10 or 8"),
        ("data.instruction='Use' #tags", "YAML reads what follows the # as a comment; put the whole value in quotes"),
        ("data.prompts=[/a] # all", "YAML reads what follows the # as a comment"),
        ("data.instruction=off", "data.instruction: write text, in quotes where it looks like something else, not off"),
        ("reward.lora={r: [}", "override 'reward.lora={r: [}':1: not valid YAML"),
        ("ppo={max_steps: 1, max_steps: 2}", "override 'ppo={max_steps: 1, max_steps: 2}':1: max_steps: given twice"),
    ],
)
def test_a_mistake_names_the_override(override: str, expected: str) -> None:
    said = message(override)
    assert expected in said
    assert len(said.splitlines()) == 1
