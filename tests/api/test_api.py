"""The Python interface: what the command line does, from a program, with the same numbers and the same messages."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import podium
from podium.errors import UserError
from podium.models import Model
from podium.parallel.mesh import make_mesh
from support import folders

ROOT = Path(__file__).resolve().parents[2]
PAIRS = [{"prompt": f"ask {n}", "chosen": f"yes, please {n}", "rejected": f"no {n} no no"} for n in range(8)]
PPO = {
    "max_steps": 2,
    "per_device_batch_size": 4,
    "num_ppo_epochs": 1,
    "max_new_tokens": 4,
    "lora": {"r": 2},
    "score_samples": 4,
}
EXAMPLES = ROOT / "examples" / "python"
MODEL = "build/models/smollm2-135m-instruct"  # as the examples and the page name it


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return podium.load(folders.write_folder(tmp_path_factory.mktemp("model") / "base"))


@pytest.fixture(scope="module")
def mesh() -> jax.sharding.Mesh:
    return make_mesh(devices=jax.devices()[:1])


def test_importing_podium_loads_nothing_heavy() -> None:
    heavy = "[name for name in ('jax', 'numpy', 'pydantic', 'yaml') if name in sys.modules]"
    program = f"import sys, podium; print({heavy}); podium.losses"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout == "[]\n"


def test_every_name_of_the_package_is_there() -> None:
    assert all(getattr(podium, name) is not None for name in podium.__all__)


def test_a_reward_model_learns_and_scores(model: Model, mesh: Any) -> None:
    config = {"max_steps": 6, "per_device_batch_size": 8, "learning_rate": 0.02, "lora": {"r": 2}}
    reward = podium.train_reward_model(model, PAIRS, config=config, mesh=mesh, max_length=64)
    prompts = [pair["prompt"] for pair in PAIRS]
    chosen, rejected = (
        podium.score(reward, prompts, [pair[side] for pair in PAIRS]) for side in ("chosen", "rejected")
    )
    assert (chosen > rejected).all()
    turns = [[{"role": "user", "content": prompt}] for prompt in prompts]
    np.testing.assert_array_equal(podium.score(reward, turns, [pair["chosen"] for pair in PAIRS]), chosen)


def test_a_function_is_called_as_trl_calls_its_own(model: Model, mesh: Any, tmp_path: Path) -> None:
    calls: list[dict[str, Any]] = []

    def reward(prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float | None]:
        calls.append({"prompts": prompts, "completions": completions, **columns})
        return [None if n == 0 else float(n) for n in range(len(prompts))]

    rows = [
        {"prompt": "one", "level": 1},
        {"prompt": [{"role": "system", "content": "be kind"}, {"role": "user", "content": "two"}], "level": 2},
        "three",
        {"prompt": [{"role": "user", "content": "four"}], "level": 4},
    ]
    podium.train_ppo(model, reward, rows, config=PPO, mesh=mesh, folder=tmp_path)
    assert len(calls) == 3, "on the answers that scores are measured by, and in each step"
    for call in calls:
        for prompt, completion, level in zip(call["prompts"], call["completions"], call["level"], strict=True):
            text = isinstance(prompt, str)
            assert text == (level in (1, None)) == isinstance(completion, str)
            assert prompt == {1: "one", None: "three"}[level] if text else prompt[-1]["content"] in ("two", "four")
            assert text or (len(completion) == 1 and completion[0]["role"] == "assistant")
    scores = [json.loads(line)["score"] for line in (tmp_path / "rollouts.jsonl").read_text().splitlines()]
    assert scores == [0.0, 1.0, 2.0, 3.0] * 2


def test_ppo_follows_a_function(model: Model, mesh: Any, tmp_path: Path) -> None:
    def few_a(prompts: Sequence[str], completions: Sequence[str]) -> list[float]:
        return [-float(len(completion)) for completion in completions]

    config = PPO | {"max_steps": 12, "per_device_batch_size": 16, "learning_rate": 0.02, "num_ppo_epochs": 2}
    podium.train_ppo(model, few_a, ["a", "b", "c", "d"], config=config, mesh=mesh, folder=tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    first, last = (np.mean([row["objective/scores_raw"] for row in part]) for part in (rows[:3], rows[-3:]))
    assert last > first + 0.5


def test_the_same_call_again_goes_on_where_it_was(model: Model, mesh: Any, tmp_path: Path) -> None:
    def stops(prompts: Sequence[str], completions: Sequence[str]) -> list[float]:
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt
        return [float(len(completion)) for completion in completions]

    config = PPO | {"max_steps": 3, "save_steps": 1}
    left = 99
    whole = podium.train_ppo(model, stops, ["a", "b", "c", "d"], config=config, mesh=mesh, seed=5)
    left = 3
    with pytest.raises(KeyboardInterrupt):
        podium.train_ppo(model, stops, ["a", "b", "c", "d"], config=config, mesh=mesh, seed=5, folder=tmp_path)
    left = 99
    again = podium.train_ppo(model, stops, ["a", "b", "c", "d"], config=config, mesh=mesh, seed=5, folder=tmp_path)
    assert left >= 99 - 3, "the steps before the last checkpoint are not made again"
    jax.tree.map(np.testing.assert_array_equal, again.adapter, whole.adapter)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: podium.train_ppo(m, max, ["a"], config={"max_stepz": 2}), "config: ppo.max_stepz: unknown key"),
        (lambda m: podium.train_reward_model(m, [{"prompt": "a"}]), r"preferences\[0\]: columns prompt fit no format"),
        (lambda m: podium.train_ppo(m, max, [{"text": ""}]), r"prompts\[0\]: "),
        (lambda m: podium.score(m, ["a"], ["b"]), "score: the model has no reward head; give what train_reward_model"),
        (
            lambda m: podium.train_ppo(m, lambda prompts, completions: [1.0], ["a", "b"], config=PPO),
            r"reward function: 1 values for \d+ completions; return one for each",
        ),
        (
            lambda m: podium.train_ppo(m, lambda prompts, completions: ["x" for _ in prompts], ["a"], config=PPO),
            "reward function: could not convert string to float: 'x'; return a number or None for each",
        ),
    ],
)
def test_a_mistake_is_a_user_error_that_says_what_to_write(model: Model, call: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        call(model)


def run(words: list[str], folder: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))}
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_examples_run(tmp_path: Path) -> None:
    base = folders.write_folder(tmp_path / "base")
    out = run([sys.executable, str(EXAMPLES / "reward_function.py"), str(base), "1"], tmp_path)
    assert out.startswith("before: ") and "\nafter: " in out
    out = run([sys.executable, str(EXAMPLES / "reward_model.py"), str(base), "1"], tmp_path)
    assert out.startswith("chosen: ") and "\nafter: " in out
    assert (tmp_path / "build" / "tuned" / "model.safetensors").is_file()


def test_the_notebook_runs(tmp_path: Path) -> None:
    base = folders.write_folder(tmp_path / "base")
    cells = json.loads((EXAMPLES / "podium.ipynb").read_text(encoding="utf-8"))["cells"]
    program = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    program = program.replace(f'"{MODEL}", 10', f'"{base}", 1')
    assert "STEPS" in program and MODEL not in program
    run([sys.executable, "-c", program], tmp_path)


def test_the_programs_of_the_page_run(tmp_path: Path) -> None:
    base = folders.write_folder(tmp_path / "base")
    page = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    program = "\n".join(re.findall(r"```python\n(.*?)```", page, re.DOTALL))
    assert program.count('"max_steps": 10') == 3
    run(
        [sys.executable, "-c", program.replace(MODEL, str(base)).replace('"max_steps": 10', '"max_steps": 1')], tmp_path
    )
    assert (tmp_path / "tuned" / "config.json").is_file()
