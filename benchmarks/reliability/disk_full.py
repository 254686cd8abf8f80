"""Let the disk fill up at different moments of a run, free some, start it again, and compare the bytes.

Each try has a disk of its own size: a file system in memory, which only root may mount, or else (--limit) a limit on
the size of a single file. A run that stops has to leave with 2 and one line, with no output that says it is complete
and is not; with more room, the same command has to go on.
"""

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import tiny_run

PROGRAM = Path(tiny_run.__file__)


def run(folder: Path, out: Path, limit: int | None = None) -> subprocess.CompletedProcess[str]:
    """Run it, with a limit on the bytes of a file."""

    def lower() -> None:
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    command = [sys.executable, str(PROGRAM), str(folder), "--out", str(out)]
    return subprocess.run(
        command, env=tiny_run.environment(folder), capture_output=True, text=True, check=False, preexec_fn=lower
    )


def used(out: Path) -> int:
    """Return the bytes of all files, in pages of 4 KiB."""
    return sum(-(-path.stat().st_size // 4096) * 4096 for path in out.rglob("*") if path.is_file())


@contextmanager
def disk(place: Path, size: int) -> Iterator[None]:
    """Mount a file system in memory."""
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(place)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(place)], check=True)
        place.rmdir()


def main() -> None:
    """Fill, free, go on, compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tries", type=int, default=10, help="how many sizes of the disk")
    parser.add_argument("--limit", action="store_true", help="limit the size of files instead of the disk's")
    given = parser.parse_args()
    stopped = 0
    with tempfile.TemporaryDirectory(prefix="podium-full-") as name:
        folder = Path(name)
        tiny_run.write_inputs(folder)
        first = run(folder, folder / "whole")
        if first.returncode:
            sys.exit(first.stdout + first.stderr)
        expected, whole = tiny_run.contents(folder / "whole"), used(folder / "whole")
        largest = max(path.stat().st_size for path in (folder / "whole").rglob("*") if path.is_file())
        for number in range(given.tries):
            share = (number + 0.5) / given.tries
            if given.limit:
                size = int(largest * share)
                stopped += _stops(folder, folder / "out", run(folder, folder / "out", size), size)
                _goes_on(folder, folder / "out", expected)
                shutil.rmtree(folder / "out")
                continue
            size = int(whole * share)
            with disk(folder / "disk", size):
                stopped += _stops(folder, folder / "disk" / "out", run(folder, folder / "disk" / "out"), size)
                subprocess.run(["mount", "-o", f"remount,size={4 * whole}", str(folder / "disk")], check=True)
                _goes_on(folder, folder / "disk" / "out", expected)
    print(f"{given.tries} sizes: {stopped} runs stopped with exit code 2 and one line; all went on; 0 differing bits")


def _stops(folder: Path, out: Path, done: subprocess.CompletedProcess[str], size: int) -> int:
    errors = [line for line in done.stderr.splitlines() if line.startswith("podium: error:")]
    if done.returncode == 0:
        print(f"{size} bytes: enough", flush=True)
        return 0
    if done.returncode != 2 or len(errors) != 1 or "Traceback" in done.stderr:
        sys.exit(f"{size} bytes: ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    if bad := tiny_run.damaged(out):
        sys.exit(f"{size} bytes: says it is complete and is not: {bad[0]}")
    print(f"{size} bytes: {errors[0].replace(str(folder), '')}", flush=True)
    return 1


def _goes_on(folder: Path, out: Path, expected: dict[str, object]) -> None:
    again = run(folder, out)
    if again.returncode or tiny_run.contents(out) != expected:
        sys.exit(f"with more room: ended with {again.returncode}:\n{again.stdout}{again.stderr}")


if __name__ == "__main__":
    os.nice(5)
    main()
