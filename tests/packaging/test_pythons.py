"""Newer versions of Python than the one that the tests run on.

The command line needs compiled packages only behind `--help`, so that any such interpreter on this machine can be
asked with the packages of this environment. One with packages of its own, which `make pythons` installs, runs two
stages.
Seen to fail: with `import distutils.version` in podium.cli, and with "\\d" in a plain string.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

import pytest

from support.folders import write_folder

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
VERSIONS = [found[1] for line in PROJECT["classifiers"] if (found := re.search(r"Python :: (3\.\d+)$", line))]
NEWER = [version for version in VERSIONS if version != "3.11"]
SOURCES = (ROOT, ROOT / "components", ROOT / "pipelines")
# A warning about a source is what the next version refuses.
COMPILE = (
    "import pathlib, sys\n"
    "for root in sys.argv[1:]:\n"
    "    for path in pathlib.Path(root).rglob('*.py'): compile(path.read_bytes(), str(path), 'exec')"
)


def interpreter(version: str) -> str:
    """Return an interpreter of a version from this machine, or skip the test where there is none."""
    # Beside the one that runs the tests, as pyenv and uv install them, or on the path.
    beside = sorted(Path(sys.base_prefix).parent.glob(f"*{version}*/bin/python3"))
    for python in [*map(str, beside), shutil.which(f"python{version}")]:
        ask = "import sys; print('{}.{}'.format(*sys.version_info))"
        if python and subprocess.run([python, "-c", ask], capture_output=True, text=True).stdout.strip() == version:
            return python
    pytest.skip(f"no Python {version} on this machine")


def call(words: list[str], folder: Path, *paths: Path | str) -> str:
    """Run a command with some places of packages, and return its output."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    environment["PYTHONPATH"] = os.pathsep.join(map(os.fspath, paths))
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_classifiers_name_the_versions_from_the_oldest_on() -> None:
    assert PROJECT["requires-python"] == f">={VERSIONS[0]}"
    assert [f"3.{minor}" for minor in range(11, 11 + len(VERSIONS))] == VERSIONS


@pytest.mark.parametrize("version", NEWER)
def test_every_module_compiles_without_a_warning(version: str, tmp_path: Path) -> None:
    roots = [
        str(root / name)
        for root, name in zip(SOURCES, ("podium", "podium_components", "podium_pipelines"), strict=True)
    ]
    call([interpreter(version), "-W", "error", "-c", COMPILE, *roots], tmp_path)


@pytest.mark.parametrize("version", NEWER)
def test_the_command_line_explains_itself(version: str, tmp_path: Path) -> None:
    packages = sysconfig.get_path("purelib")
    for words in (["--version"], ["--help"]):
        printed = call([interpreter(version), "-m", "podium", *words], tmp_path, *SOURCES, packages)
        assert printed.startswith(("podium 0", "Usage: podium"))


@pytest.mark.parametrize("version", NEWER)
def test_configs_are_checked_and_small_stages_run(version: str, tmp_path: Path) -> None:
    python = ROOT / "build" / "pythons" / version / "bin" / "python"
    if not python.exists():
        pytest.skip(f"no packages for Python {version}: make pythons installs them")
    write_folder(tmp_path / "model")
    rows = [{"prompt": f"b{'a' * (n % 7)}", "chosen": "cab", "rejected": "bad"} for n in range(60)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "c.yaml").write_text(
        "model: {name_or_path: model}\ndata: {preferences: a.jsonl, prompts: a.jsonl}\n"
        "reward: {max_steps: 2, per_device_batch_size: 2}\n"
    )
    podium = [str(python), "-m", "podium"]
    assert call([*podium, "validate", "c.yaml"], tmp_path, *SOURCES).endswith("c.yaml: valid\n")
    outputs = ("preferences", "prompts", "demonstrations", "data_report")
    places = [word for name in outputs for word in ("--output", f"{name}=out/{name}")]
    call([*podium, "prepare", "--config", "c.yaml", *places], tmp_path, *SOURCES)
    trained = ["--input", "preferences=out/preferences", "--output", "reward_model=out/reward_model"]
    call([*podium, "reward", "--config", "c.yaml", *trained], tmp_path, *SOURCES)
    assert (tmp_path / "out" / "reward_model" / "manifest.json").exists()
