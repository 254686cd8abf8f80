"""The images: pinned, for a user without rights, the same from two builds, described by what is written beside them.

Where a container engine can start the base image, the launcher image is built twice, the second time from nothing, and
smoke-tested by the script that builds it.
"""

import argparse
import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zlib
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest
from packaging.requirements import Requirement

from podium.version import __version__

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = (ROOT / "containers" / "trainer" / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
PINNED = re.search(r"^ARG BASE=(\S+)$", DOCKERFILE, re.MULTILINE)
MEGABYTE = 1_000_000


def words(instruction: str) -> list[list[str]]:
    """Return the arguments of each use of a Dockerfile's instruction."""
    return [line.split()[1:] for line in DOCKERFILE.splitlines() if line.startswith(f"{instruction} ")]


def test_every_stage_stands_on_the_pinned_base() -> None:
    assert PINNED and re.fullmatch(r"docker\.io/library/python:3\.11-slim@sha256:[0-9a-f]{64}", PINNED[1])
    stages: list[str] = []
    for source, _, name in words("FROM"):
        assert source in {"${BASE}", "scratch", *stages}
        stages.append(name)


def test_no_root_and_no_entry_point() -> None:
    stage = DOCKERFILE[DOCKERFILE.index(" AS image\n") :].partition("\nFROM ")[0]
    assert re.findall(r"^USER (.*)$", stage, re.MULTILINE) == ["1000:1000"]
    assert words("ENTRYPOINT") == []


def test_what_is_copied_is_in_the_build_context() -> None:
    kept = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    copied = [source for line in words("COPY") if not line[0].startswith("--from") for source in line[:-1]]
    examples = {"requirements/${LOCK}.lock": "requirements/trainer-cpu.lock", "build/wheel/": "build/wheel/podium.whl"}
    assert copied
    for source in copied:
        assert any(fnmatch(examples.get(source, source), pattern) for pattern in kept), source


def provenance() -> ModuleType:
    """Load the script that writes a provenance statement."""
    spec = importlib.util.spec_from_file_location("provenance", ROOT / "containers" / "provenance.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def dependencies(**options: str) -> dict[str, Any]:
    """Return what a statement says that an image was built from, by name."""
    given = {"image": "i:1", "image_id": "f" * 64, "revision": "c" * 40, "lock": "launcher", "base": "b:1"}
    given |= {"base_id": "sha256:" + "e" * 64, "engine": "podman version 5", "epoch": "0"}
    made = provenance().statement(argparse.Namespace(**(given | options)))
    assert made["subject"] == [{"name": "i:1", "digest": {"sha256": "f" * 64}}]
    return {item["name"]: item for item in made["predicate"]["buildDefinition"]["resolvedDependencies"]}


def test_provenance_names_locks_by_digest() -> None:
    lock = ROOT / "requirements" / "launcher.lock"
    found = dependencies()
    digest = {"sha256": hashlib.sha256(lock.read_bytes()).hexdigest()}
    assert found["requirements/launcher.lock"]["digest"] == digest
    assert {"requirements/installer.lock", "containers/trainer/Dockerfile"} <= found.keys()
    assert "requirements/trainer-cpu.lock" not in found


def test_provenance_says_which_base_and_whether_the_commit_is_all() -> None:
    found = dependencies()
    assert (found["base"]["digest"], found["base"]["annotations"]) == ({"sha256": "e" * 64}, {"digest": "image ID"})
    assert (found["source"]["digest"], found["source"]["annotations"]) == (
        {"gitCommit": "c" * 40},
        {"changed": False},
    )
    found = dependencies(revision="c" * 40 + "-dirty", base="b:1@sha256:" + "d" * 64)
    assert (found["base"]["digest"], found["base"]["annotations"]) == ({"sha256": "d" * 64}, {"digest": "manifest"})
    assert found["source"]["annotations"] == {"changed": True}
    assert "source" not in dependencies(revision="unknown")


class Built(NamedTuple):
    """An image that was built: the engine, its exact name, its ID, and what is written beside it."""

    engine: str
    name: str
    image_id: str
    record: Path

    def ask(self, *options: str) -> str:
        """Run the engine; return what it printed."""
        return subprocess.run([self.engine, *options], check=True, capture_output=True, text=True).stdout.strip()


def starting_engine() -> str:
    """Return the name of an engine that can start the base image; skip where there is none."""
    base = os.environ.get("BASE") or (PINNED and PINNED[1]) or ""
    said = "neither docker nor podman is installed"
    for name in (os.environ.get("CONTAINER_ENGINE") or "docker podman").split():
        if shutil.which(name):
            command = [name, "run", "--rm", "--network=none", base, "python", "--version"]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode == 0:
                return name
            said = f"{name}: {done.stderr.strip().splitlines()[-1:]}"
    pytest.skip(f"no container engine can start {base}: {said}")


def build(engine: str, **environment: str) -> Built:
    """Build the launcher image under a name that is only the tests'."""
    given = {"IMAGE_REPOSITORY": "localhost/podium-test", "CONTAINER_ENGINE": engine, "PODIUM_PYTHON": sys.executable}
    done = subprocess.run(
        ["containers/build.sh", "launcher"],
        cwd=ROOT,
        env=os.environ | given | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    name, record = re.findall(r"^built (\S+), .*; (\S+)\.cdx\.json", done.stdout, re.MULTILINE)[0]
    command = [engine, "inspect", "--format", "{{.Id}}", name]
    image_id = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    return Built(engine, name, image_id.removeprefix("sha256:"), ROOT / record)


@pytest.fixture(scope="module")
def builds() -> Iterator[tuple[Built, Built]]:
    """Build the launcher image twice, the second time from nothing."""
    engine = starting_engine()
    first = build(engine)
    again = build(engine, CLEAN="1")
    yield first, again
    moving = again.name.rpartition("-")[0]
    subprocess.run([engine, "rmi", "--force", first.name, again.name, moving], check=True, capture_output=True)
    for path in again.record.parent.glob("localhost-podium-test-*"):
        path.unlink()


def test_two_builds_give_one_image(builds: tuple[Built, Built]) -> None:
    first, again = builds
    assert first.image_id == again.image_id
    assert again.name == f"localhost/podium-test/launcher:{__version__}-{again.image_id[:12]}"
    assert again.ask("inspect", "--format", "{{.Id}}", f"localhost/podium-test/launcher:{__version__}").endswith(
        again.image_id
    )


def revision() -> str:
    """Return what git says of the tree that is built."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    return done.stdout.strip() or "unknown"


def test_labels_say_what_it_is(builds: tuple[Built, Built]) -> None:
    built = builds[-1]
    labels = json.loads(built.ask("inspect", "--format", "{{json .Config.Labels}}", built.name))
    prefix = "org.opencontainers.image."
    assert {name.removeprefix(prefix): value for name, value in labels.items()} == {
        "title": "podium-launcher",
        "version": __version__,
        "revision": revision(),
        "licenses": "Apache-2.0",
    }


def test_layers_are_small(builds: tuple[Built, Built], tmp_path: Path) -> None:
    built = builds[-1]
    built.ask("save", "--output", str(tmp_path / "image.tar"), built.name)
    sizes = []
    with tarfile.open(tmp_path / "image.tar") as archive:
        manifest = archive.extractfile("manifest.json")
        assert manifest
        for layer in json.load(manifest)[0]["Layers"]:
            stored = archive.extractfile(layer)
            assert stored
            sizes.append(len(zlib.compress(stored.read())))
    # The packages, then Podium alone.
    assert sizes[-1] < 5 * MEGABYTE < sizes[-2]
    assert sum(sizes) < 150 * MEGABYTE


def test_bill_of_materials_is_the_lock(builds: tuple[Built, Built]) -> None:
    bill = json.loads(builds[-1].record.with_name(f"{builds[-1].record.name}.cdx.json").read_text(encoding="utf-8"))
    lock = (ROOT / "requirements" / "launcher.lock").read_text(encoding="utf-8")
    locked = [Requirement(line.rstrip(" \\")) for line in lock.splitlines() if not line.startswith(" ")]
    wanted = {f"{item.name}{item.specifier}" for item in locked if not item.marker or item.marker.evaluate()}
    held = {component["bom-ref"].lower().replace("_", "-") for component in bill["components"]}
    assert bill["bomFormat"] == "CycloneDX"
    assert held == wanted | {f"podium=={__version__}"}


def test_provenance_is_of_this_image(builds: tuple[Built, Built]) -> None:
    built = builds[-1]
    made = json.loads(built.record.with_name(f"{built.record.name}.intoto.json").read_text(encoding="utf-8"))
    assert made["subject"] == [{"name": built.name, "digest": {"sha256": built.image_id}}]
    assert any(item["name"].endswith(".whl") for item in made["predicate"]["buildDefinition"]["resolvedDependencies"])
