"""Several processes run a stage as one does, and end together where one of them ends."""

import signal
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from podium.training.metrics import read_metrics, without_clock
from support.gang import Gang, ended, write


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gang")
    write(path)
    return path


@pytest.fixture(scope="module")
def runs(folder: Path) -> tuple[Gang, Gang]:
    """One process, and two that see no folder of each other, of which the first alone writes."""
    one, two = Gang(folder, 1, name="one"), Gang(folder, 2, common=False, name="two")
    run(one, "prepare", "reward", "ppo")
    begin(two, one, "prepare")
    run(two, "reward", "ppo", "export")
    return one, two


def run(gang: Gang, *stages: str) -> None:
    for stage in stages:
        for code, output in gang.run(stage):
            assert code == 0, output


def begin(gang: Gang, whole: Gang, *stages: str) -> None:
    """Give a gang what another one's stages left."""
    gang.out.mkdir()
    for stage in stages:
        (gang.out / stage).symlink_to(whole.out / stage)


def files(out: Path, stage: str) -> set[Path]:
    """TensorBoard's have the time in their names."""
    return {path.relative_to(out) for path in (out / stage).rglob("*") if "tensorboard" not in path.parts}


def test_two_processes_leave_what_one_does(runs: tuple[Gang, Gang]) -> None:
    one, two = (gang.out for gang in runs)
    for stage, model in (("reward", "reward_model"), ("ppo", "policy")):
        assert files(one, stage) == files(two, stage)
        for first, second in zip(*(read_metrics(out / stage / model) for out in (one, two)), strict=True):
            assert without_clock(second) == pytest.approx(without_clock(first), rel=1e-4, abs=1e-5)
    weights = [load_file(out / "ppo" / "policy" / "model.safetensors") for out in (one, two)]
    assert weights[0].keys() == weights[1].keys()
    for name, values in weights[0].items():
        np.testing.assert_allclose(weights[1][name], values, rtol=1e-3, atol=1e-4, err_msg=name)


def test_only_the_first_process_writes(runs: tuple[Gang, Gang]) -> None:
    assert not list(runs[1].folder.glob("two.1*"))


def test_the_exported_folder_loads_in_transformers(runs: tuple[Gang, Gang]) -> None:
    transformers = pytest.importorskip("transformers")
    model = transformers.AutoModelForCausalLM.from_pretrained(runs[1].out / "export" / "model")
    assert all(bool(value.isfinite().all()) for value in model.parameters())


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (("seed=1", "data.prompts=pairs.jsonl"), ("seed 0 -> 1", "prompts")),
        (("data.prompts=absent.jsonl",), ("absent",)),
    ],
)
def test_what_one_process_is_given_differently_is_said_by_name_and_nothing_is_written(
    folder: Path, overrides: tuple[str, ...], said: tuple[str, ...]
) -> None:
    gang = Gang(folder, 2, name="differs")
    for code, output in ended(gang.start("prepare", only={1: overrides})):
        assert code == 2, output
        assert "process 1" in output and all(words in output for words in said)
    assert not gang.out.exists()


def test_a_killed_process_ends_the_other_and_the_gang_goes_on_with_the_same_bits(
    folder: Path, runs: tuple[Gang, Gang]
) -> None:
    """Killed after the checkpoint of step 2 of 4, in a folder that both write to: a folder each left the same."""
    whole, killed = runs[1], Gang(folder, 2, name="killed")
    begin(killed, whole, "prepare", "reward")
    started = killed.start("ppo")
    checkpoint = killed.out / "ppo" / "policy" / ".work" / "checkpoints" / "2"
    deadline = time.monotonic() + 240
    while not checkpoint.is_dir() and time.monotonic() < deadline and started[1].poll() is None:
        time.sleep(0.02)
    started[1].kill()
    at = time.monotonic()
    (code, output), _ = ended(started)
    assert time.monotonic() - at < 60
    assert code in (75, 134, -signal.SIGABRT), output
    assert "(stopped sending heartbeats):\n1\n" in output, "the coordination service names it"
    run(killed, "ppo")
    policy = Path("ppo", "policy", "model.safetensors")
    assert (killed.out / policy).read_bytes() == (whole.out / policy).read_bytes()
