"""Run every stage by 1, 2 and 4 processes, with one folder for all and with a folder each, and compare what they leave.

Weights and metrics of several processes are those of one, but for the order in which numbers are added. Prints a line
per comparison with the largest difference.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

from support.gang import WHOLE, Gang, write_whole
from support.outcome import BOUND, apart


def run(gang: Gang) -> float:
    """Run all stages; returns the seconds that they took."""
    began = time.monotonic()
    for stage in WHOLE:
        for index, (code, output) in enumerate(gang.run(stage)):
            if code:
                sys.exit(f"{gang.name}: process {index} of {stage} ended with {code}:\n{output}")
    return time.monotonic() - began


def main() -> None:
    """Run and compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, nargs="+", default=[2, 4])
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="podium-pods-") as name:
        folder = Path(name)
        write_whole(folder)
        one = Gang(folder, 1, name="one")
        print(f"1 process: {run(one):.0f} s", flush=True)
        for processes in given.processes:
            for common in (True, False):
                gang = Gang(folder, processes, common, f"{processes}-{'common' if common else 'apart'}")
                seconds = run(gang)
                if not common and (strays := list(folder.glob(f"{gang.name}.*"))):
                    sys.exit(f"others than process 0 wrote: {strays}")
                gap = apart(one.out, gang.out)
                kind = "one folder" if common else "a folder each"
                print(f"{processes} processes, {kind}: {seconds:.0f} s, largest difference {gap:.1e}", flush=True)
                if gap > BOUND:
                    sys.exit(f"more than {BOUND:g}")


if __name__ == "__main__":
    main()
