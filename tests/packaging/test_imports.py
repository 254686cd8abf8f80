"""What is loaded by importing Podium, and what each floor may need."""

import ast
import importlib.metadata
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NUMERICAL = {"jax", "jaxlib", "flax", "optax", "orbax", "numpy", "scipy", "torch", "transformers"}
HEAVY = NUMERICAL | {"kfp", "google", "kubernetes", "pyarrow", "safetensors", "fsspec", "altair"}
# What a lighter start would cost: typer and rich are the command line itself.
HELP = "import sys; from podium.cli import main; sys.argv = ['podium', '--help']; main()"


def modules_after(program: str, tmp_path: Path) -> set[str]:
    """Run a program in a fresh process and return the names of all modules it loaded, and of their top-level packages.

    Not those that the interpreter's own start loads: namespace packages come with .pth files.
    """
    listing = tmp_path / "modules"
    at_exit = (
        "import atexit, sys, pathlib;"
        "before = set(sys.modules);"
        f"atexit.register(lambda: pathlib.Path({str(listing)!r}).write_text(chr(10).join(set(sys.modules) - before)));"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    done = subprocess.run([sys.executable, "-c", at_exit + program], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    names = listing.read_text().splitlines()
    return {*names, *(name.split(".")[0] for name in names)}


@pytest.mark.parametrize(
    ("program", "forbidden"),
    [
        ("import podium", HEAVY | {"pydantic", "yaml", "typer", "rich"}),
        (HELP, HEAVY | {"pydantic"}),
        ("import podium.config", HEAVY | {"typer", "rich"}),
        # scipy.stats takes a second to import.
        (
            "from podium.stages import evaluate, export, ppo, prepare, reward, sample, sft",
            {"kfp", "kubernetes", "torch", "scipy.stats"},
        ),
        ("import podium_components", NUMERICAL),
        ("import podium_pipelines.cli", HEAVY),
        ("import podium_pipelines.run, podium_pipelines.compiler", NUMERICAL),
    ],
)
def test_loads_nothing_it_has_no_use_for(program: str, forbidden: set[str], tmp_path: Path) -> None:
    assert modules_after(program, tmp_path) & forbidden == set()


def declared(extras: set[str]) -> set[str]:
    """Return the names of the distributions that the base and some extras require, as written in pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [*project["dependencies"], *(line for extra in extras for line in project["optional-dependencies"][extra])]
    return {re.split(r"[^A-Za-z0-9_.-]", line)[0].lower().replace("_", "-") for line in lines}


def imported(folder: Path) -> dict[str, str]:
    """Return every top-level name that a package's files import, anywhere in them, with one file that does."""
    found = {}
    for path in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0]: path.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                found[node.module.split(".")[0]] = path.name
    own = {"podium", "podium_components", "podium_pipelines"}
    return {name: path for name, path in found.items() if name not in sys.stdlib_module_names | own}


@pytest.mark.parametrize(
    ("folder", "extras", "optional"),
    [
        # torch and peft verify exports and run parity tests: no extra installs them. pydantic pins its core exactly.
        ("podium", {"train"}, {"torch", "peft", "pydantic_core"}),
        ("components/podium_components", {"kfp"}, set()),
        ("pipelines/podium_pipelines", {"kfp", "vertex"}, set()),
    ],
)
def test_every_import_is_a_declared_requirement(folder: str, extras: set[str], optional: set[str]) -> None:
    distributions = importlib.metadata.packages_distributions()
    allowed = declared(extras)
    missing = {
        name: path
        for name, path in imported(ROOT / folder).items()
        if name not in optional
        and not {owner.lower().replace("_", "-") for owner in distributions.get(name, [name])} & allowed
    }
    assert missing == {}


def test_every_requirement_is_imported() -> None:
    distributions = importlib.metadata.packages_distributions()
    used = {
        owner.lower().replace("_", "-")
        for folder in ("podium", "components", "pipelines")
        for name in imported(ROOT / folder)
        for owner in distributions.get(name, [name])
    }
    # Needed without an import: jinja2 by chat templates, vl-convert by altair's SVG, ml-dtypes by safetensors.
    assert declared({"train", "kfp", "vertex"}) - used <= {"jinja2", "ml-dtypes"}


@pytest.mark.skipif("CI" not in os.environ, reason="only CI must have torch: elsewhere parity tests may skip")
def test_ci_has_torch_so_that_parity_tests_cannot_skip() -> None:
    assert importlib.metadata.version("torch").split("+")[0] == "2.13.0"
