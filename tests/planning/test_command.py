"""`podium plan` as a user calls it: answers, refusals in one line, the cache.

The plan is that of two GPUs: nothing is compiled, so that only the process starts.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import podium.cli
from podium.planning import requests
from podium.planning.wording import size
from support import folders

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A config whose model folder has config.json alone."""
    folder = tmp_path / "model"
    folder.mkdir()
    folders.write_json(folder / "config.json", folders.CONFIG)
    file = tmp_path / "rlhf.yaml"
    settings = {
        "model": {"name_or_path": "model"},
        "data": {"max_prompt_length": 16, "max_length": 32},
        "ppo": {"max_new_tokens": 16, "global_batch_size": 8, "per_device_batch_size": 2, "max_steps": 50},
        "platform": {"resources": {"ppo": {"accelerator": "nvidia-l4", "count": 2}}},
    }
    file.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return file


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Command:
    """Return a function that runs `podium plan ...` in this process: exit code, output, errors."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("PODIUM_CACHE", raising=False)

    def run(*words: Any) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["podium", "plan", *map(str, words)])
        with pytest.raises(SystemExit) as caught:
            podium.cli.main()
        out, err = capsys.readouterr()
        code = caught.value.code
        return (code if isinstance(code, int) else 0 if code is None else 1), out, err

    return run


def test_a_plan_is_printed_kept_and_drawn(
    config: Path, command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    code, out, err = command(config, "--price", "2")
    assert code == 0, err
    for words in ("on nvidia-l4:2: 2 chips, 1 host", "fits:", "not measured", "50 steps:", "at 2 USD a chip and hour"):
        assert words in out
    assert "podium plan: tracing the ppo step" in err
    shown = out

    def refuse(*_: Any) -> None:
        raise AssertionError("the same question was answered before")

    monkeypatch.setattr(requests, "_measure", refuse)
    page = tmp_path / "plan.html"
    code, out, err = command(config, "--json", "--report", page)
    plan = json.loads(out)
    assert code == 0 and plan["cached"] and plan["fits"] and not plan["step"]["measured"]
    assert plan["run"]["cost"] is None
    assert sum(plan["memory"]["kinds"].values()) == plan["memory"]["peak"]
    assert plan["step"]["predicted_seconds"] == pytest.approx(sum(one["predicted"] for one in plan["phases"]))
    kinds = plan["memory"]["kinds"]
    assert f"is at most {size(2 * (kinds['trained weights'] + kinds['optimizer']))} of a host. SIGTERM loses" in shown
    html = page.read_text(encoding="utf-8")
    assert html.count("<svg") == 2 and "http" not in html.replace("http-equiv", "")
    with pytest.raises(AssertionError, match="answered before"):
        command(config, "ppo.max_new_tokens=8")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--topology", "v5e:32x32"), "no slice of v5e has this shape"),
        (("--topology", "moon:2x2"), "is no accelerator that is known"),
        (("--topology", "v5e:2x2", "--slices", "0"), "--slices 0: write 1 or more"),
        (("--stage", "sft"), "platform.resources.sft names no accelerator"),
        (("--price", "-1"), "--price -1: write what one chip costs"),
        (("--sweep", "--report", "x.html"), "--report draws one plan"),
        (("ppo.max_stepz=1",), "max_stepz"),
    ],
)
def test_a_mistake_is_named_in_a_line(config: Path, command: Command, words: tuple[str, ...], said: str) -> None:
    code, out, err = command(config, *words)
    assert (code, out) == (2, "")
    assert said in err
    assert all(line.startswith("podium: error: ") for line in err.splitlines())


def test_a_folder_without_config_json_is_named(config: Path, command: Command) -> None:
    (config.parent / "model" / "config.json").unlink()
    code, _, err = command(config)
    assert code == 2
    assert "has no config.json; a plan needs it" in err


def test_what_the_mesh_cannot_share_comes_back_as_a_line(config: Path, command: Command) -> None:
    code, _, err = command(config, "platform.mesh.fsdp=3")
    assert code == 2
    assert "platform.mesh: data=1, fsdp=3, tensor=1 does not fit 2 devices" in err


def test_what_does_not_fit_ends_with_2_and_says_what_would(config: Path, command: Command) -> None:
    raw = folders.CONFIG | {
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
    }
    folders.write_json(config.parent / "model" / "config.json", raw)
    code, out, err = command(config)
    assert code == 2
    assert "DOES NOT FIT" in out and "What would fit, estimated from shapes:" in out
    assert "ppo does not fit nvidia-l4:2: a chip would need" in err


def test_an_unfinished_answer_in_the_cache_is_made_again(
    config: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[requests.Request] = []

    def measure(request: requests.Request, _: Any) -> dict[str, Any]:
        asked.append(request)
        raise KeyboardInterrupt

    monkeypatch.setattr(requests, "_measure", measure)
    assert command(config)[0] == 130
    file = requests.cache_folder() / f"{asked[0].digest()}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text('{"measured": {', encoding="utf-8")
    assert command(config)[0] == 130
    assert len(asked) == 2
