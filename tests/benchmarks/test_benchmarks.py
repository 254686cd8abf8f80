"""Podium's side of every benchmark runs at minimal sizes, and figures are what was measured."""

import dataclasses
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

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


@pytest.mark.parametrize("name", ["ppo-small", "ppo-smollm2-lora", "reward-16"])
def test_podium_side_times_every_step(name: str) -> None:
    case = dataclasses.replace(cases.CASES[name], shape=TINY, batch=2, prompt=4, response=3, warm_up=2, steps=3)
    if case.lora:
        case = dataclasses.replace(case, lora=cases.Lora(r=2, layers=1))
    result = run.measure(case, sys.executable, BENCHMARKS / "podium_side.py")
    assert len(result["seconds"]) == case.steps
    assert all(0 < seconds < 5 for seconds in result["seconds"])
    assert {"podium", "jax"} <= result["versions"].keys()


def test_both_sides_read_the_same_case_and_tokens() -> None:
    case = cases.CASES["ppo-smollm2-lora"]
    assert cases.from_dict(json.loads(json.dumps(cases.to_dict(case)))).lora == case.lora
    program = "import cases; print(cases.tokens(cases.CASES['reward-16'], 2, 5))"
    other = subprocess.run([sys.executable, "-c", program], cwd=BENCHMARKS, capture_output=True, text=True, check=True)
    assert json.loads(other.stdout) == cases.tokens(cases.CASES["reward-16"], 2, 5)


def test_ratio_is_of_the_two_sides_of_a_round() -> None:
    case = dataclasses.replace(cases.CASES["ppo-small"], batch=10)
    figures = run.summary(case, {"podium": [1.0, 2.0, 1.0], "trl": [2.0, 6.0, 5.0]})
    assert (figures["podium"], figures["trl"]) == (10.0, 2.0)
    assert (figures["ratio"], figures["ratio_range"]) == (3.0, [2.0, 5.0])


def test_a_side_that_fails_ends_the_comparison(tmp_path: Path) -> None:
    script = tmp_path / "side.py"
    script.write_text("raise ValueError('no such trainer')")
    with pytest.raises(SystemExit, match=r"side\.py failed:[\s\S]*no such trainer"):
        run.measure(cases.CASES["ppo-small"], sys.executable, script)


def test_table_shows_every_difference_beside_the_figure() -> None:
    case = cases.CASES["reward-64"]
    figures = run.summary(case, {"podium": [0.5], "trl": [1.0]})
    text = run.table([{"name": "reward-64", "versions": {"trl": "1.16.0"}, **figures}])
    assert "128.00    64.00 pairs/s      2.00" in text
    assert all(difference in text for difference in case.differences)
