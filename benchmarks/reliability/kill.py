"""Kill a run at random moments, start it again, and compare its last bytes with those of a run that was never killed.

Half of the kills come before a random change of a file (opening for writing, renaming, removing), the others after a
random time. Every kill is SIGKILL. Prints one line per kill and the counts.
"""

import argparse
import collections
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import tiny_run

PROGRAM = Path(tiny_run.__file__)


def start(folder: Path, out: Path, **settings: str) -> subprocess.Popen[str]:
    """Start the run in `out`."""
    environment = {**tiny_run.environment(folder), **settings}
    command = [sys.executable, str(PROGRAM), str(folder), "--out", str(out)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def whole_run(folder: Path) -> tuple[int, float]:
    """Make the run that is never killed; return its number of changes, and how long a second one, compiled, takes."""
    for out in ("first", "whole"):
        begin = time.monotonic()
        process = start(folder, folder / out, CHANGES=str(folder / "changes"))
        printed, _ = process.communicate()
        if process.returncode:
            sys.exit(f"the run that is not killed ended with {process.returncode}:\n{printed}")
    _compare(tiny_run.contents(folder / "first"), folder / "whole")
    return int((folder / "changes").read_text(encoding="utf-8")), time.monotonic() - begin


def one_start(folder: Path, out: Path, changes: int, seconds: float, rng: random.Random) -> tuple[int, str, str]:
    """Start the run and kill it somewhere; return its status, where it was to die, and what it printed."""
    if rng.random() < 0.5:
        number = rng.randint(1, max(changes // 3, 1))
        process = start(folder, out, KILL_AT=str(number))
        printed, _ = process.communicate()
        return process.returncode, f"change {number}", printed
    after = rng.uniform(0.2, 0.8) * seconds
    process = start(folder, out)
    try:
        printed, _ = process.communicate(timeout=after)
    except subprocess.TimeoutExpired:
        process.kill()
        printed, _ = process.communicate()
    return process.returncode, f"{after:.1f} s", printed


def main() -> None:
    """Kill, resume, compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=25, help="how many have to land")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    rng, landed, finished, where = random.Random(given.seed), 0, 0, collections.Counter[str]()
    with tempfile.TemporaryDirectory(prefix="podium-kill-") as name:
        folder, out = Path(name), Path(name, "killed")
        tiny_run.write_inputs(folder)
        changes, seconds = whole_run(folder)
        expected = tiny_run.contents(folder / "whole")
        print(f"a run changes files {changes} times and takes {seconds:.0f} s", flush=True)
        while landed < given.kills or out.exists():
            last = landed >= given.kills
            if last:
                process = start(folder, out)
                printed, status, moment = process.communicate()[0], process.returncode, "its end"
            else:
                status, moment, printed = one_start(folder, out, changes, seconds, rng)
            stage = (re.findall(r"podium (\w+): starting", printed) or ["start"])[-1]
            if status == -9:
                landed += 1
                where[stage] += 1
                print(f"kill {landed}: in {stage}, at {moment}", flush=True)
            elif status:
                sys.exit(f"started again, it ended with {status}:\n{printed}")
            else:
                finished += 1
                _compare(expected, out)
                print(f"finished {finished}: equal bytes", flush=True)
                shutil.rmtree(out)
    print(f"{landed} kills landed ({dict(where)}); {finished} runs went on to their end; 0 differing bits")


def _compare(expected: dict[str, object], out: Path) -> None:
    found = tiny_run.contents(out)
    differing = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    if differing or tiny_run.damaged(out):
        sys.exit(f"{out.name} differs from a run that was not killed: {differing[:5]} {tiny_run.damaged(out)[:1]}")


if __name__ == "__main__":
    os.nice(5)
    main()
