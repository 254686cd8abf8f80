"""The floors hold, and the check that says so would notice if they did not."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LINT = (
    "import sys; from importlinter.cli import lint_imports_command;"
    "sys.argv = ['lint-imports', '--no-cache', '--no-logo']; lint_imports_command()"
)


def lint(root: Path) -> subprocess.CompletedProcess[str]:
    """Check the contracts of pyproject.toml on the packages below a folder."""
    path = os.pathsep.join(str(root / folder) for folder in ("", "components", "pipelines"))
    environment = {**os.environ, "PYTHONPATH": path, "COLUMNS": "200", "NO_COLOR": "1"}
    return subprocess.run([sys.executable, "-c", LINT], cwd=root, env=environment, capture_output=True, text=True)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Return a copy of the packages and their contracts that a test may spoil."""
    ignore = shutil.ignore_patterns("__pycache__")
    for folder in ("podium", "components", "pipelines"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=ignore)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_floors_hold() -> None:
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


@pytest.mark.parametrize(
    ("file", "line", "broken"),
    [
        ("podium/losses/masked.py", "import podium.training", "Imports point down"),
        ("podium/losses/masked.py", "import podium.models", "Losses know no model"),
        ("podium/models/loading.py", "import podium.convert", "Networks and data know no form of weights but"),
        ("podium/models/families/llama.py", "import podium.models.lora", "Model families know neither files nor"),
        ("podium/version.py", "import kfp", "The library knows neither KFP nor a cloud"),
        ("podium/config/base.py", "import numpy", "Components and pipelines never reach a numerical library"),
        ("components/podium_components/stages.py", "import podium.data", "Components and pipelines see only config"),
        ("podium/storage/files.py", "import podium.stages", "Imports point down"),
        ("podium/storage/files.py", "import numpy", "Components and pipelines never reach a numerical library"),
        ("podium/version.py", "import podium_components", "Pipelines use components"),
    ],
)
def test_a_wrong_import_is_found(copy: Path, file: str, line: str, broken: str) -> None:
    path = copy / file
    path.write_text(f"{path.read_text(encoding='utf-8')}\n{line}\n", encoding="utf-8")
    done = lint(copy)
    assert done.returncode == 1
    assert any(broken in row and row.rstrip().endswith("BROKEN") for row in done.stdout.splitlines()), done.stdout


def test_a_module_without_a_floor_is_found(copy: Path) -> None:
    (copy / "podium" / "attic.py").write_text('"""Something that nobody placed."""\n', encoding="utf-8")
    done = lint(copy)
    assert done.returncode != 0
    assert "podium.attic" in done.stdout
