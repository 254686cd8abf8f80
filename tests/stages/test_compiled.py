"""Compiled programs outlive the process that made them, and are of no artifact."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from podium.config import PodiumConfig
from podium.parallel.compiled import kept_in
from podium.parallel.hardware import processor_digest
from podium.stages.compiled import place_of_programs
from podium.stages.found import Here, There
from podium.stages.io import Result, StageIO
from podium.stages.manifest import contents
from podium.stages.runner import run_stage
from support.buckets import bucket
from support.small_stage import Killed, Stage, config, evaluate_inputs
from support.stores import in_memory

SETTINGS = {"jax_compilation_cache_dir": None, "jax_persistent_cache_min_compile_time_secs": 0.0}


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Without the folder that the processes of a test run share; everything is worth keeping."""
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    before = {name: getattr(jax.config, name) for name in SETTINGS}
    for name, value in SETTINGS.items():
        jax.config.update(name, value)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


def compiled_in(place: str | None, constant: float) -> list[str]:
    """Say what is said where a program, new to this process, is compiled or loaded, and gives what it should."""
    said: list[str] = []
    with kept_in(place, said.append):
        assert float(jax.jit(lambda x: (x * constant).sum())(jnp.arange(3.0))) == 3 * constant
    return said


def test_a_program_is_compiled_once(alone: None, tmp_path: Path) -> None:
    place = str(tmp_path / "programs")
    assert compiled_in(place, 3.25) == []
    (said,) = compiled_in(place, 3.25)
    found, _, rest = said.removeprefix("podium: ").partition(" of ")
    assert rest.startswith(f"{found} programs were compiled before, in {place}/"), said
    assert [path.name for path in Path(place).iterdir()] == [processor_digest()], "no other processor loads them"
    assert compiled_in(None, 3.25) == [], "and nothing is kept, or found, afterwards"
    assert jax.config.jax_compilation_cache_dir is None


class Compiling(Stage):
    """A stage that compiles a program, new to this process, and says what it gives."""

    def __call__(self, config: PodiumConfig, io: StageIO) -> Result:
        assert float(jax.jit(lambda x: (x * 6.25).sum())(jnp.arange(3.0))) == 18.75
        return super().__call__(config, io)


def test_a_stage_that_is_started_again_compiles_nothing(alone: None, tmp_path: Path) -> None:
    said: list[str] = []
    io = StageIO.local(tmp_path / "out", **evaluate_inputs(tmp_path))
    stage = Compiling("evaluate", failure=Killed())
    with pytest.raises(Killed):
        run_stage("evaluate", config(), io, run=stage, say=said.append)
    assert said == []
    stage.failure = None
    run_stage("evaluate", config(), io, run=stage, say=said.append)
    place = tmp_path / "out" / "metrics" / ".work" / "compiled" / processor_digest()
    found = said[0].split()[1]
    assert said == [f"podium: {found} of {found} programs were compiled before, in {place}"]
    assert not place.exists(), "the stage is complete"


@pytest.mark.parametrize("scheme", ["s3", "gcs"])
def test_a_store_keeps_programs_too(alone: None, monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    """As JAX reads and writes it, with fsspec; JAX asks for gs:// by its other name."""
    store = bucket(monkeypatch, scheme)
    place = f"{'gs' if scheme == 'gcs' else scheme}://runs/{scheme}/cache"
    assert compiled_in(place, 4.5) == []
    assert any("-cache" in name for name in store.store)
    assert [said.partition(" were ")[0] for said in compiled_in(place, 4.5)]


def test_programs_lie_with_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def place(chosen: str = "auto", output: str = str(tmp_path / "policy")) -> str | None:
        io = StageIO({}, {"policy": output})
        return place_of_programs(config(platform={"compilation_cache": chosen}), io, ["policy"], said.append)

    said: list[str] = []
    monkeypatch.delenv("STORAGE", raising=False)
    monkeypatch.setenv("PODIUM_CACHE", str(tmp_path / "here"))
    assert place() == str(tmp_path / "policy" / ".work" / "compiled")
    assert place(output="s3://runs/policy/") == "s3://runs/policy/.work/compiled"
    assert place("none") is None
    assert place("gs://all/programs") == "gs://all/programs"
    assert place(str(tmp_path / "all")) == str(tmp_path / "all")
    monkeypatch.setenv("STORAGE", "gs://runs/")
    assert place() == "gs://runs/cache"
    assert said == []
    assert place("hf://datasets/x/y") == str(tmp_path / "here" / "compiled")
    assert said == [f"podium: compiled programs are kept in {tmp_path}/here/compiled: JAX cannot keep any in hf://"]


def test_programs_are_neither_of_an_artifact_nor_worth_keeping_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, place = in_memory(monkeypatch), tmp_path / "policy"
    outputs = Here("policy", place, False), There("policy", "gs://runs/policy", False)

    def write(name: str) -> None:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).touch()
        store.pipe_file(f"/runs/policy/{name}", b"")
        vars(outputs[1]).pop("states", None)

    write(".work/task")
    write(".work/compiled/jit_step-cache")
    write("model.safetensors")
    assert contents(place) == [place / "model.safetensors"]
    assert [output.has_checkpoints for output in outputs] == [False, False]
    write(".work/checkpoints/2/state")
    assert [output.has_checkpoints for output in outputs] == [True, True]
