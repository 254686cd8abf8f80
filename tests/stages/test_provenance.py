"""What the report's header says: the run's name, when and how long training was, on what hardware."""

import json
from pathlib import Path

import jax
import pytest

from podium.evaluation.report import Run
from podium.parallel.hardware import hardware
from podium.stages.io import StageIO, write_manifest
from podium.stages.provenance import run_of


def trained(folder: Path, times: list[float]) -> Path:
    folder.mkdir()
    rows = [{"step": step, "time": time} for step, time in enumerate(times)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_times_are_those_of_the_logged_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reward model 60 s, policy 125 s; the pause between them is no training."""
    policy = trained(tmp_path / "policy", [1.7e9 + 1000, 1.7e9 + 1125])
    described = {"policy": {"hardware": "8 x TPU v5 lite"}}
    write_manifest(policy, stage="ppo", config={}, inputs={}, metadata=described)
    io = StageIO.local(tmp_path, policy=policy, reward_model=trained(tmp_path / "reward", [1.7e9, 1.7e9 + 60]))
    monkeypatch.setenv("RUN", "courteous-20231114-221320")
    assert run_of(io) == Run("courteous-20231114-221320", "2023-11-14 22:32 UTC", 185.0, "8 x TPU v5 lite")


def test_what_is_not_known_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RUN", raising=False)
    for name in ("policy", "reward"):
        (tmp_path / name).mkdir()
    assert run_of(StageIO.local(tmp_path, policy=tmp_path / "policy", reward_model=tmp_path / "reward")) == Run()


def test_devices_are_counted_by_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "CPU core" in hardware()

    class Device:
        device_kind = "TPU v5 lite"

    monkeypatch.setattr(jax, "devices", lambda: [Device()] * 8)
    assert hardware() == "8 x TPU v5 lite"
