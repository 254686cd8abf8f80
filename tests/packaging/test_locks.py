"""The locks: hashed, without hosts or paths, without torch, and in step with pyproject.toml."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
LOCKS = sorted((ROOT / "requirements").glob("*.lock"))
EXTRAS = {
    "dev": ("train", "cloud", "kfp", "launcher", "vertex", "dev"),
    "launcher": ("launcher", "cloud"),
    "trainer-cpu": ("train", "cloud"),
    "trainer-cuda": ("train", "cloud", "cuda"),
    "trainer-tpu": ("train", "cloud", "tpu"),
}


def pins(lock: Path) -> dict[str, set[str]]:
    """Return the locked versions by distribution; markers may lock several."""
    found: dict[str, set[str]] = {}
    for line in lock.read_text(encoding="utf-8").splitlines():
        if match := re.match(r"([A-Za-z0-9_.-]+)==([^\s;\\]+)", line):
            found.setdefault(canonicalize_name(match[1]), set()).add(match[2])
    return found


def requirements(extras: tuple[str, ...]) -> list[Requirement]:
    """Return the direct requirements of the base and some extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [*project["dependencies"], *(line for extra in extras for line in project["optional-dependencies"][extra])]
    return [Requirement(line) for line in lines]


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.stem)
def test_lock_is_hashes_and_versions_and_nothing_else(lock: Path) -> None:
    line = re.compile(r"([A-Za-z0-9_.-]+==[A-Za-z0-9_.!]+( ; [^/:]+)? \\|    --hash=sha256:[0-9a-f]{64}( \\)?)")
    text = lock.read_text(encoding="utf-8").splitlines()
    assert [row for row in text if not line.fullmatch(row)] == []
    assert len([row for row in text if "--hash" in row]) >= len(pins(lock)) > 0


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.stem)
def test_lock_holds_no_torch(lock: Path) -> None:
    assert {"torch", "triton"} & pins(lock).keys() == set()


@pytest.mark.parametrize("name", EXTRAS)
def test_lock_satisfies_the_project(name: str) -> None:
    locked = pins(ROOT / "requirements" / f"{name}.lock")
    wrong = [
        str(requirement)
        for requirement in requirements(EXTRAS[name])
        if not any(
            requirement.specifier.contains(version) for version in locked.get(canonicalize_name(requirement.name), ())
        )
    ]
    assert wrong == [], "write: make locks"


@pytest.mark.parametrize("name", ["trainer-cpu", "trainer-cuda", "trainer-tpu"])
def test_images_hold_the_versions_that_the_tests_ran_with(name: str) -> None:
    tested = pins(ROOT / "requirements" / "dev.lock")
    image = pins(ROOT / "requirements" / f"{name}.lock")
    assert {
        package: versions for package, versions in image.items() if package in tested and versions != tested[package]
    } == {}
    assert "kfp" not in image


@pytest.mark.parametrize("name", ["installer", "demo", "sbom"])
def test_short_locks_pin_what_their_input_names(name: str) -> None:
    asked = Requirement((ROOT / "requirements" / f"{name}.in").read_text(encoding="utf-8").strip())
    (version,) = pins(ROOT / "requirements" / f"{name}.lock")[asked.name]
    assert asked.specifier.contains(version)


def test_the_tests_compile_with_what_the_tpu_image_holds() -> None:
    locks = (pins(ROOT / "requirements" / f"{name}.lock") for name in ("libtpu", "trainer-tpu"))
    assert len({frozenset(lock["libtpu"]) for lock in locks}) == 1
