"""Podium's side of every benchmark runs at minimal sizes, and figures are what was measured."""

import dataclasses
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def load(name: str) -> ModuleType:
    """Import a benchmark module as running it would: with its folder on the path."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules.setdefault(name, module)
        spec.loader.exec_module(module)
        return module
    finally:
        sys.path.remove(str(BENCHMARKS))


cases, run = load("cases"), load("run")
TINY = cases.Shape(vocabulary=32, embed=16, layers=2, heads=2, kv_heads=1, mlp=16)


def tiny(name: str) -> Any:
    case = dataclasses.replace(cases.CASES[name], batch=2, prompt=4, response=3, warm_up=2, steps=3, weights=None)
    heads = {"kv_heads": 2, "decoder_layers": 1} if case.shape.decoder_layers else {}
    lora = cases.Lora(r=2, layers=1) if case.lora else None
    return dataclasses.replace(case, shape=dataclasses.replace(TINY, **heads), lora=lora)


@pytest.mark.parametrize("name", ["ppo-small", "ppo-smollm2-lora", "ppo-encoder-decoder", "reward-16", "generate-8"])
def test_podium_side_times_every_step(name: str, tmp_path: Path) -> None:
    case = tiny(name)
    result = run.measure(case, *run.sides(case, tmp_path)["podium"])
    assert len(result["seconds"]) == case.steps
    assert all(seconds > 0 for seconds in result["seconds"])
    assert {"podium", "jax"} <= result["versions"].keys()
    if case.kind == "generate":
        assert [len(row) for row in result["ids"]] == [case.response] * case.batch


def test_both_sides_read_the_same_case_and_tokens() -> None:
    case = cases.CASES["ppo-smollm2-lora"]
    assert cases.from_dict(json.loads(json.dumps(cases.to_dict(case)))).lora == case.lora
    program = "import cases; print(cases.tokens(cases.CASES['reward-16'], 2, 5))"
    other = subprocess.run([sys.executable, "-c", program], cwd=BENCHMARKS, capture_output=True, text=True, check=True)
    assert json.loads(other.stdout) == cases.tokens(cases.CASES["reward-16"], 2, 5)


def test_ratio_is_of_the_two_sides_of_a_round() -> None:
    case = dataclasses.replace(cases.CASES["ppo-small"], batch=10)
    figures = run.summary(case, {"podium": [1.0, 2.0, 1.0], "peer": [2.0, 6.0, 5.0]})
    assert (figures["podium"], figures["peer"]) == (10.0, 2.0)
    assert (figures["ratio"], figures["ratio_range"]) == (3.0, [2.0, 5.0])


def test_a_side_that_fails_ends_the_comparison(tmp_path: Path) -> None:
    script = tmp_path / "side.py"
    script.write_text("raise ValueError('no such trainer')")
    with pytest.raises(SystemExit, match=r"side\.py failed:[\s\S]*no such trainer"):
        run.measure(cases.CASES["ppo-small"], sys.executable, script)


def test_table_shows_every_difference_beside_the_figure() -> None:
    case = cases.CASES["reward-64"]
    figures = run.summary(case, {"podium": [0.5], "peer": [1.0]})
    text = run.table([{"name": "reward-64", "versions": {"trl": "1.16.0"}, **figures}])
    assert "128.00    64.00 pairs/s      2.00" in text
    assert all(difference in text for difference in case.differences)


def test_generation_is_shown_beside_the_speed_of_memory() -> None:
    case = cases.CASES["generate-8"]
    medians = {"podium": [4.0], "peer": [8.0]}
    figures = run.summary(case, medians) | run.traffic(case, medians, 20e9) | {"same_tokens": 0.5}
    text = run.table([{"name": "generate-8", "versions": {}, **figures}])
    assert "128.00    64.00 tokens/s     2.00" in text
    # SmolLM2-135M has 134,515,008 parameters; they are read 64 times.
    assert case.shape.weight_bytes == 4 * 134_515_008
    assert "8.6 GB/s (43%) and 4.3 GB/s (22%) of the 20.0 GB/s" in text
    assert "50.0% of the tokens" in text


def test_tokens_are_compared_by_place() -> None:
    assert run.same_tokens([[1, 2, 3], [4, 5, 6]], [[1, 2, 4], [4, 5, 6]]) == 5 / 6
    with pytest.raises(ValueError, match="shorter"):
        run.same_tokens([[1, 2]], [[1]])


def test_every_case_has_scripts_and_a_locked_environment() -> None:
    for case in cases.CASES.values():
        scripts = run.sides(case, Path("peers"))
        assert all(script.is_file() for _, script in scripts.values())
        assert (BENCHMARKS.parent / "requirements" / f"peers-{case.peer}.in").is_file()


def test_an_accelerators_figures_are_those_of_its_variants(tmp_path: Path) -> None:
    """The same script, at small sizes on a processor: its attention agrees with the reference, and all is timed."""
    result = tmp_path / "figures.json"
    command = [sys.executable, BENCHMARKS / "accelerator.py", "--small", "--json", result]
    subprocess.run(command, check=True, capture_output=True, text=True)
    figures = json.loads(result.read_text())
    assert figures["attention"]["largest_relative_difference"] < 1e-5
    assert all(figures["remat"][policy]["seconds"] > 0 for policy in ("none", "dots", "full"))
    assert all(figures["decode"].values())
