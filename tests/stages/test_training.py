"""The reward and PPO stages as a user runs them: through the command line, killed and started again."""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from podium.training.metrics import read_metrics, without_clock
from support import folders

ENVIRONMENT = {**os.environ, "JAX_PLATFORMS": "cpu", "HF_HUB_OFFLINE": "1"}
STEPS = 48


def podium(*arguments: str, **options) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "podium", *arguments]
    return subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False, **options)


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of the files that hold weights."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.safetensors")}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a configuration and the outputs of prepare and reward, from a model of two random layers."""
    here = tmp_path_factory.mktemp("run")
    folders.write_folder(here / "base")
    pairs = [{"prompt": f"question {i}", "chosen": f"yes, please {i}", "rejected": f"no {i} no no"} for i in range(40)]
    (here / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pairs))
    (here / "prompts.jsonl").write_text("".join(json.dumps({"prompt": f"ask {i}"}) + "\n" for i in range(40)))
    config = {
        "model": {"name_or_path": "./base"},
        "data": {"preferences": "pairs.jsonl", "prompts": "prompts.jsonl", "max_prompt_length": 40, "max_length": 64},
        "reward": {"lora": {"r": 4, "layers": 1}, "learning_rate": 0.01, "max_steps": 4, "save_steps": 2},
        "ppo": {
            "lora": {"r": 4, "layers": 1},
            "max_steps": STEPS,
            "max_new_tokens": 8,
            "per_device_batch_size": 4,
            "num_ppo_epochs": 2,
            "kl_target": 2.0,
            "learning_rate": 0.01,
        },
    }
    (here / "rlhf.json").write_text(json.dumps(config))
    outputs = [f"--output={name}={here}/{name}" for name in ("preferences", "prompts", "data_report")]
    done = podium("prepare", "--config", f"{here}/rlhf.json", *outputs)
    assert done.returncode == 0, done.stderr
    wanted = [f"--input=preferences={here}/preferences", f"--output=reward_model={here}/reward_model"]
    done = podium("reward", "--config", f"{here}/rlhf.json", *wanted, f"--output=metrics={here}/reward_metrics")
    assert done.returncode == 0, done.stderr
    assert "reward: answers to normalise on 0/" in done.stderr, "long work says at once what it does"
    return here


def ppo(run: Path, out: Path) -> list[str]:
    return [
        "ppo",
        f"--config={run}/rlhf.json",
        f"--input=prompts={run}/prompts",
        f"--input=reward_model={run}/reward_model",
        *(f"--output={name}={out}/{name}" for name in ("policy", "rollouts", "metrics")),
    ]


def test_the_reward_stage_learns_reports_and_normalises(run: Path) -> None:
    metrics = json.loads((run / "reward_metrics" / "metrics.json").read_text())
    report = json.loads((run / "reward_model" / "report.json").read_text())
    assert metrics["accuracy"] == report["accuracy"]["value"] > 0.7
    losses = [json.loads(line)["loss"] for line in (run / "reward_model" / "metrics.jsonl").read_text().splitlines()]
    assert losses
    assert_timed(run / "reward_model", run / "reward_metrics")
    manifest = json.loads((run / "reward_model" / "podium_model.json").read_text())
    assert manifest["role"] == "reward"
    assert manifest["gain"] == metrics["gain"] != 1.0


def assert_timed(model: Path, metrics: Path) -> None:
    """Some steps say how fast they were, in tokens that do not hang on the clock; what is compared does not."""
    timed = [row for row in read_metrics(model) if "perf/step_seconds" in row]
    tokens = {round(row["perf/tokens_per_second_per_chip"] * row["perf/step_seconds"], 3) for row in timed}
    assert tokens and all(count > 0 and count % 4 == 0 for count in tokens)
    assert not any("perf/mfu" in row for row in timed), "the peak of this processor is not known"
    assert not any(name.startswith("perf/") for name in json.loads((metrics / "metrics.json").read_text()))


def interrupt(command: list[str], metrics: Path, steps: int, number: signal.Signals) -> tuple[int, str]:
    """Send a signal to a run that has reported so many steps; return its status and what it said last."""
    with subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and process.poll() is None:
            if metrics.exists() and metrics.read_text().count("\n") >= steps:
                break
            time.sleep(0.01)
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    return process.returncode, errors.splitlines()[-1]


def test_a_run_stopped_and_killed_ends_as_one_that_was_not(run: Path, tmp_path: Path) -> None:
    """How often it saves decides where it goes on, and nothing else: it may change on the way."""
    done = podium(*ppo(run, tmp_path / "whole"))
    assert done.returncode == 0, done.stderr
    broken, whole = tmp_path / "broken", tmp_path / "whole"
    command = [sys.executable, "-m", "podium", *ppo(run, broken)]
    metrics, checkpoints = broken / "policy" / "metrics.jsonl", broken / "policy" / ".work" / "checkpoints"
    status, said = interrupt([*command, "ppo.save_steps=1000"], metrics, 3, signal.SIGTERM)
    assert (status, [path.name for path in checkpoints.iterdir()]) == (75, re.findall(r"step (\d+) of 48", said))
    reached = int(re.findall(r"podium ppo: stopped after step (\d+) of 48, which is saved; start it again", said)[0])
    assert 3 <= reached < STEPS - 8
    status, said = interrupt([*command, "ppo.save_steps=1"], metrics, reached + 3, signal.SIGKILL)
    assert status == -signal.SIGKILL, "the run ended before it could be killed"
    # A slow machine has said more of its progress by then.
    assert int(re.findall(r"^ppo (\d+)/48", said)[0]) >= reached
    assert not digests(broken / "policy")
    again = podium(*ppo(run, broken), "ppo.save_minutes=77")
    assert again.returncode == 0, again.stderr
    assert int(re.findall(r"^ppo (\d+)/", again.stderr, re.MULTILINE)[0]) > reached
    assert digests(broken / "policy") == digests(whole / "policy") != {}
    logged, unbroken = ([without_clock(row) for row in read_metrics(folder / "policy")] for folder in (broken, whole))
    assert logged == unbroken
    assert_timed(whole / "policy", whole / "metrics")
    assert [row["step"] for row in logged] == list(range(1, STEPS + 1))
    assert [row["episode"] for row in logged] == [4 * (step + 1) for step in range(STEPS)]
    # Of the first update of each step, two to a step, on the way to zero.
    assert [row["lr"] for row in logged] == pytest.approx([0.01 * (1 - step / STEPS) for step in range(STEPS)])
    rollouts = [(folder / "rollouts" / "rollouts.jsonl").read_text() for folder in (broken, whole)]
    assert rollouts[0] == rollouts[1]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("ppo.kl_stop=0.0000001", ["kl_stop", "checkpoint"]),
        ("model.name_or_path=/nowhere/model", ["/nowhere/model"]),
        ("ppo.max_new_tokens=120", ["max_new_tokens", "128"]),
        ("ppo.lora.layers=9", ["lora.layers", "1 to 2"]),
    ],
)
def test_a_users_mistake_gets_two_lines_and_exit_code_2(run: Path, tmp_path: Path, change: str, words) -> None:
    done = podium(*ppo(run, tmp_path), change, "ppo.kl_target=null")
    assert done.returncode == 2, done.stderr
    message = done.stderr[done.stderr.index("podium: error:") :].strip()
    assert len(message.splitlines()) <= 2
    assert all(word in message for word in words)
    assert not (tmp_path / "policy" / "manifest.json").exists()


def test_weights_that_are_not_finite_are_refused_before_training(run: Path, tmp_path: Path) -> None:
    import numpy as np

    folders.write_folder(tmp_path / "base")
    folders.change_tensors(tmp_path / "base", **{"model.norm.weight": np.full(32, np.nan, np.float32)})
    done = podium(*ppo(run, tmp_path / "out"), f"model.name_or_path={tmp_path}/base")
    assert done.returncode == 2, done.stderr
    assert "model.norm.weight" in done.stderr
