"""The mesh of a stage: what the configuration says, or what `auto` makes of the model's config.json and the devices."""

import contextlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from podium.config.load import load_config_data
from podium.errors import UserError
from podium.parallel.choice import Chips
from podium.parallel.mesh import INNER
from podium.stages import meshes
from podium.stages.io import StageIO
from support.folders import CONFIG, write_json

# Bytes of a chip: of one a sixth is less than a third of the weights of the model below, of the other more than all.
SMALL, LARGE = 200_000, 2**30


def laid_out(folder: Path, stage: str, monkeypatch: pytest.MonkeyPatch, *, memory: int | None, **sections: Any):
    """A folder with config.json and nothing else stands for model and reward model."""
    write_json(folder / "config.json", CONFIG)
    monkeypatch.setattr(meshes, "chips_at_hand", lambda: memory and Chips(8, memory))
    config = load_config_data({"model": {"name_or_path": str(folder)}, **sections}, source="test")
    return meshes.stage_mesh(config, StageIO.local(folder, reward_model=folder), stage)


def test_auto_on_cpus_and_on_one_device_is_plain_fsdp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    assert meshes.chips_at_hand() is None
    mesh, rollout = laid_out(tmp_path, "ppo", monkeypatch, memory=None)
    assert dict(mesh.shape) == {"slice": 1, "data": 1, "fsdp": 8, "tensor": 1}
    assert rollout is None and capsys.readouterr().err == ""


def test_auto_reads_the_model_and_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    """300 tokens and 4 heads: no more than four devices share weights."""
    mesh, rollout = laid_out(tmp_path, "ppo", monkeypatch, memory=SMALL, ppo={"lora": {"r": 2}})
    assert dict(mesh.shape) == {"slice": 1, "data": 1, "fsdp": 2, INNER: 4, "tensor": 1}
    assert rollout is not None and rollout.weights == (INNER, "tensor")
    said = capsys.readouterr().err
    assert said.startswith(
        "podium ppo: note: mesh {data: 1, fsdp: 8, tensor: 1, rollout: {data: 2, tensor: 4}}: training"
    )


@pytest.mark.parametrize(
    ("stage", "memory", "expected"),
    [
        ("sft", LARGE, {"data": 1, "fsdp": 8, "tensor": 1}),
        ("reward", LARGE, {"data": 1, "fsdp": 8, "tensor": 1}),
        ("sample", LARGE, {"data": 8, "fsdp": 1, "tensor": 1}),
        ("sample", SMALL, {"data": 2, "fsdp": 1, "tensor": 4}),
        ("evaluate", LARGE, {"data": 8, "fsdp": 1, "tensor": 1}),
    ],
)
def test_every_stage_that_computes_has_a_choice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str, memory: int, expected: dict[str, int]
) -> None:
    mesh, rollout = laid_out(tmp_path, stage, monkeypatch, memory=memory, sft={}, data={"demonstrations": "d.jsonl"})
    assert dict(mesh.shape) == {"slice": 1, **expected}
    assert rollout is None


def test_few_rows_of_an_update_share_chips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mesh, _ = laid_out(tmp_path, "reward", monkeypatch, memory=LARGE, reward={"global_batch_size": 4})
    assert dict(mesh.shape) == {"slice": 1, "data": 1, "fsdp": 4, "tensor": 2}


def test_sizes_of_the_user_are_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {"fsdp": 4, "tensor": 2, "rollout": {"tensor": 4}}
    mesh, rollout = laid_out(tmp_path, "ppo", monkeypatch, memory=LARGE, platform={"mesh": sizes})
    assert dict(mesh.shape) == {"slice": 1, "data": 1, "fsdp": 2, INNER: 2, "tensor": 2}
    assert rollout is not None and rollout.rows == ("slice", "data", "fsdp")
    with pytest.raises(UserError, match=r"slice=2, but the devices are of 1"):
        laid_out(tmp_path, "ppo", monkeypatch, memory=LARGE, platform={"mesh": {"slice": 2}})


@pytest.mark.parametrize(
    ("platform", "slices", "topology", "said"),
    [
        ("tpu", (16,), "4x4", None),
        ("tpu", (16, 16), "4x4", None),
        (
            "tpu",
            (8,),
            "4x4",
            r"ppo\.topology: 4x4 has 16 chips, and the devices of this run are 8 \(TPU v5",
        ),
        ("tpu", (16, 8), "4x4", r"the devices of this run are 8 and 16 a slice \(TPU v5 lite\)"),
        ("tpu", (4,), None, None),
        ("cpu", (1,), "4x4", None),
    ],
)
def test_tpus_are_the_slice_that_was_asked_for(
    tmp_path: Path, platform: str, slices: tuple[int, ...], topology: str | None, said: str | None
) -> None:
    resources = {"accelerator": "v5e", "topology": topology} if topology else {}
    raw = {"model": {"name_or_path": str(tmp_path)}, "platform": {"resources": {"ppo": resources}}}
    config = load_config_data(raw, source="test")
    devices = [
        SimpleNamespace(platform=platform, device_kind="TPU v5 lite", slice_index=index)
        for index, count in enumerate(slices)
        for _ in range(count)
    ]
    with contextlib.nullcontext() if said is None else pytest.raises(UserError, match=said):
        meshes.check_devices(config, "ppo", devices)
