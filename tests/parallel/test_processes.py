"""Several processes run a stage as one does, and end together where one of them ends."""

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from podium.training.metrics import read_metrics
from support.gang import Gang, ended, write

STAGES = ("prepare", "reward", "ppo", "export")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gang")
    write(path)
    return path


@pytest.fixture(scope="module")
def runs(folder: Path) -> Iterator[tuple[Gang, Gang]]:
    """One process, and two that see no folder of each other: the first alone writes."""
    gangs = Gang(folder, 1, name="one"), Gang(folder, 2, common=False, name="two")
    for gang in gangs:
        for stage in STAGES:
            for code, output in gang.run(stage):
                assert code == 0, output
    yield gangs


def files(out: Path) -> set[Path]:
    """TensorBoard's have the time in their names."""
    return {path.relative_to(out) for path in out.rglob("*") if "tensorboard" not in path.parts}


def test_two_processes_leave_what_one_does(runs: tuple[Gang, Gang]) -> None:
    one, two = (gang.out for gang in runs)
    names = [
        {path.relative_to(out) for path in out.rglob("*") if "tensorboard" not in path.parts} for out in (one, two)
    ]
    assert names[0] == names[1]
    for stage, model in (("reward", "reward_model"), ("ppo", "policy")):
        for first, second in zip(*(read_metrics(out / stage / model) for out in (one, two)), strict=True):
            assert second == pytest.approx(first | {"time": second["time"]}, rel=1e-4, abs=1e-5)
    weights = [load_file(out / "export" / "model" / "model.safetensors") for out in (one, two)]
    assert weights[0].keys() == weights[1].keys()
    for name, values in weights[0].items():
        np.testing.assert_allclose(weights[1][name], values, rtol=1e-3, atol=1e-4, err_msg=name)


def test_only_the_first_process_writes(runs: tuple[Gang, Gang]) -> None:
    assert not list(runs[1].folder.glob("two.1*"))


def test_a_finished_stage_is_kept_by_all(runs: tuple[Gang, Gang]) -> None:
    for code, output in runs[1].run("reward"):
        assert code == 0 and "done in" not in output


def test_the_exported_folder_loads_in_transformers(runs: tuple[Gang, Gang]) -> None:
    transformers = pytest.importorskip("transformers")
    model = transformers.AutoModelForCausalLM.from_pretrained(runs[1].out / "export" / "model")
    assert all(bool(value.isfinite().all()) for value in model.parameters())


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (("seed=1",), "seed 0 -> 1"),
        (("data.prompts=pairs.jsonl",), "prompts"),
        (("data.prompts=absent.jsonl",), "absent"),
    ],
)
def test_what_one_process_is_given_differently_is_said_by_name_and_nothing_is_written(
    folder: Path, overrides: tuple[str, ...], said: str
) -> None:
    gang = Gang(folder, 2, name="differs")
    for code, output in ended(gang.start("prepare", only={1: overrides})):
        assert code == 2, output
        assert "process 1" in output and said in output
    assert not gang.out.exists()


def test_a_killed_process_ends_the_other_and_the_gang_goes_on_with_the_same_bits(
    folder: Path, runs: tuple[Gang, Gang]
) -> None:
    """Killed after the checkpoint of step 2 of 4, in a folder that both write to."""
    whole, killed = Gang(folder, 2, name="whole"), Gang(folder, 2, name="killed")
    for gang in (whole, killed):
        gang.out.mkdir()
        for stage in ("prepare", "reward"):
            (gang.out / stage).symlink_to(runs[1].out / stage)
    for code, output in whole.run("ppo"):
        assert code == 0, output
    started = killed.start("ppo")
    checkpoint = killed.out / "ppo" / "policy" / ".work" / "checkpoints" / "2"
    deadline = time.monotonic() + 240
    while not checkpoint.is_dir() and time.monotonic() < deadline and started[1].poll() is None:
        time.sleep(0.02)
    started[1].kill()
    begin = time.monotonic()
    (code, output), _ = ended(started)
    assert time.monotonic() - begin < 60
    assert code in (75, 134, -signal.SIGABRT), output
    assert "(stopped sending heartbeats):\n1\n" in output, "the coordination service names it"
    for code, output in killed.run("ppo"):
        assert code == 0, output
    policy = Path("ppo", "policy", "model.safetensors")
    assert (killed.out / policy).read_bytes() == (whole.out / policy).read_bytes()
