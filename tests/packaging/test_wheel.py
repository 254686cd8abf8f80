"""The wheel, built from the sdist, claims three names and works from another folder."""

import os
import subprocess
import sys
import tarfile
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NAMES = {"podium", "podium_components", "podium_pipelines"}


def build(source: Path, target: str, folder: Path) -> Path:
    """Build one distribution with the pinned backend, without a network."""
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(folder)],
        cwd=source,
        check=True,
        capture_output=True,
    )
    (built,) = folder.iterdir()
    return built


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the wheel that the unpacked sdist gives."""
    folder = tmp_path_factory.mktemp("dist")
    sdist = build(ROOT, "sdist", folder / "sdist")
    with tarfile.open(sdist) as archive:
        # Debian 12 has Python 3.11.2, which does not know the filters yet.
        safely = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
        archive.extractall(folder / "source", **safely)
    (source,) = (folder / "source").iterdir()
    return build(source, "wheel", folder / "wheel")


@pytest.fixture(scope="module")
def unpacked(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder that holds what the wheel would install."""
    folder = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def test_claims_exactly_three_import_names(unpacked: Path) -> None:
    names = {path.name for path in unpacked.iterdir()}
    (info,) = (name for name in names if name.endswith(".dist-info"))
    assert names - {info} == NAMES


def test_holds_every_file_of_the_packages(unpacked: Path) -> None:
    for root, name in (
        (ROOT, "podium"),
        (ROOT / "components", "podium_components"),
        (ROOT / "pipelines", "podium_pipelines"),
    ):
        source = {
            path.relative_to(root) for path in (root / name).rglob("*") if path.suffix != ".pyc" and path.is_file()
        }
        wheel = {path.relative_to(unpacked) for path in (unpacked / name).rglob("*") if path.is_file()}
        assert wheel == source
        assert Path(name, "py.typed") in wheel


def test_base_requirements_are_light(unpacked: Path) -> None:
    (info,) = unpacked.glob("*.dist-info")
    metadata = Parser().parsestr((info / "METADATA").read_text(encoding="utf-8"))
    base = {line.split(">")[0] for line in metadata.get_all("Requires-Dist", []) if "extra ==" not in line}
    assert base == {"pydantic<3,", "pyyaml<7,", "rich", "typer", "typing-extensions"}
    assert metadata["License-Expression"] == "Apache-2.0"
    assert (info / "licenses" / "LICENSE").is_file()


def test_command_works_from_another_folder(unpacked: Path, tmp_path: Path) -> None:
    program = (
        "import podium, sys; from podium.cli import main; print(podium.__file__);"
        "sys.argv = ['podium', '--help']; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(unpacked)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(unpacked))
    for verb in ("run", "compile", "validate", "schema", "reward", "ppo", "import-weights"):
        assert f" {verb} " in done.stdout
