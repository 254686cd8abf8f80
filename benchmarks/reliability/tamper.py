"""Damage every file of a finished run in turn, start it again, and see that exactly what is needed is made again.

A file is cut in half, has one bit flipped, is removed, or is replaced by another, in turn from file to file (--all:
each way for each file). What has to be made again: the stage that wrote the file, and those whose inputs then differ.
"""

import argparse
import os
import shutil
import sys
import tempfile
from pathlib import Path

import tiny_run

from podium.config import STAGE_TABLE

os.environ.update(tiny_run.SETTINGS)
sys.path.insert(0, str(tiny_run.ROOT))

WAYS = ("cut", "flip", "remove", "replace")


def damage(path: Path, way: str) -> None:
    """Damage a file; its time stays."""
    state, content = path.stat(), path.read_bytes()
    if way == "remove":
        path.unlink()
        return
    if way == "cut":
        content = content[: len(content) // 2]
    elif way == "flip":
        middle = len(content) // 2
        content = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
    else:
        content = b"something else"
    path.write_bytes(content)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))


def run(config: Path, out: Path) -> list[str]:
    """Run every stage as an orchestrator does; return those that were made."""
    import importlib

    from podium.config import load_config
    from podium.stages.io import StageIO
    from podium.stages.runner import run_stage

    settings, made = load_config(config), []
    for stage in tiny_run.STAGES:
        program = importlib.import_module(f"podium.stages.{stage}").run
        io = StageIO(*tiny_run.places(stage, out))
        _, skipped = run_stage(stage, settings, io, run=program, earlier="orchestrated", say=lambda text: None)
        if not skipped:
            made.append(stage)
    return made


def digests(out: Path) -> dict[str, str]:
    """Return the digest of every output by STAGE/OUTPUT."""
    from podium.stages.io import content_digest

    names = [f"{stage}/{name}" for stage in tiny_run.STAGES for name in tiny_run.outputs_of(stage)]
    return {name: content_digest(out / name) for name in names}


def needed(stage: str, before: dict[str, str], after: dict[str, str]) -> list[str]:
    """Return the stages that have to be made again where one was damaged, in their order."""
    changed = {name for name in before if before[name] != after[name]}
    return [
        one
        for one in tiny_run.STAGES
        if one == stage or any(f"{x.stage}/{x.output}" in changed for x in STAGE_TABLE[one].takes if not x.optional)
    ]


def main() -> None:
    """Damage, run again, compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--all", action="store_true", help="every way for every file")
    parser.add_argument("--most", type=int, default=None, help="stop after so many")
    given = parser.parse_args()
    count = stages = 0
    with tempfile.TemporaryDirectory(prefix="podium-tamper-") as name:
        folder = Path(name)
        os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder / "compiled")
        config = tiny_run.write_inputs(folder)
        run(config, folder / "whole")
        expected, before = tiny_run.contents(folder / "whole"), digests(folder / "whole")
        files = sorted(path for path in (folder / "whole").rglob("*") if path.is_file() and path.stat().st_size)
        cases = [
            (path, way) for number, path in enumerate(files) for way in (WAYS if given.all else [WAYS[number % 4]])
        ]
        for path, way in cases[: given.most]:
            shutil.copytree(folder / "whole", folder / "out")
            relative = path.relative_to(folder / "whole")
            damage(folder / "out" / relative, way)
            made = run(config, folder / "out")
            wanted = needed(relative.parts[0], before, digests(folder / "out"))
            for aside in (folder / "out").glob("*/*.1"):  # what lost its manifest
                shutil.rmtree(aside)
            found = tiny_run.contents(folder / "out")
            if made != wanted or found != expected:
                differing = sorted(key for key in expected.keys() | found.keys() if expected.get(key) != found.get(key))
                sys.exit(f"{way} {relative}: made {made} instead of {wanted}; differing: {differing[:5]}")
            count, stages = count + 1, stages + len(made)
            print(f"{way} {relative}: made again {', '.join(made)}; equal bytes", flush=True)
            shutil.rmtree(folder / "out")
    print(f"{count} files damaged, {stages} stages made again, none that had no need; 0 differing bits")


if __name__ == "__main__":
    os.nice(5)
    main()
