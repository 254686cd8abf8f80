"""Run every stage by 1, 2 and 4 processes, with one folder for all and with a folder each, and compare what they leave.

Weights and metrics of several processes are those of one, but for the order in which numbers are added. Prints a line
per comparison with the largest difference.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

import numpy as np
from safetensors.numpy import load_file

from podium.config import STAGE_TABLE
from podium.training.metrics import read_metrics, without_clock
from support.gang import Gang, write

STAGES = ("prepare", "sft", "reward", "sample", "ppo", "evaluate", "export")
# Sums in another order, through a few steps of training.
BOUND = 1e-3


def run(gang: Gang) -> float:
    """Run all stages; returns the seconds that they took."""
    began = time.monotonic()
    for stage in STAGES:
        for index, (code, output) in enumerate(gang.run(stage)):
            if code:
                sys.exit(f"{gang.name}: process {index} of {stage} ended with {code}:\n{output}")
    return time.monotonic() - began


def files(out: Path) -> set[Path]:
    """TensorBoard's have the time in their names."""
    return {path.relative_to(out) for path in out.rglob("*") if path.is_file() and "tensorboard" not in path.parts}


def apart(first: Path, second: Path) -> float:
    """Return the largest relative difference of weights and metrics; ends where files differ."""
    if files(first) != files(second):
        sys.exit(f"{second.name} has other files than {first.name}: {sorted(files(first) ^ files(second))[:5]}")
    gaps = [0.0]
    for path in sorted(files(first)):
        if path.suffix == ".safetensors":
            one, other = load_file(first / path), load_file(second / path)
            gaps += [relative(values, other[name]) for name, values in one.items()]
        elif path.name == "metrics.jsonl":
            rows = zip(*(read_metrics((out / path).parent) for out in (first, second)), strict=True)
            gaps += [relative(row[name], other[name]) for row, other in rows for name in without_clock(row)]
        elif path.name == "metrics.json":
            one, other = (json.loads((out / path).read_text(encoding="utf-8")) for out in (first, second))
            gaps += [relative(one[name], other[name]) for name in one]
    return max(gaps)


def relative(one: object, other: object) -> float:
    """Return the largest difference over the largest value, of values above a hundredth."""
    first, second = np.asarray(one, np.float64), np.asarray(other, np.float64)
    return float(np.abs(first - second).max(initial=0.0) / max(np.abs(first).max(initial=0.0), 1e-2))


def main() -> None:
    """Run and compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, nargs="+", default=[2, 4])
    given = parser.parse_args()
    assert set(STAGES) < set(STAGE_TABLE), "stages of the table"
    with tempfile.TemporaryDirectory(prefix="podium-pods-") as name:
        folder = Path(name)
        answers = [{"prompt": f"ask {i}", "response": f"answer {i}"} for i in range(24)]
        text = "".join(json.dumps(row) + "\n" for row in answers)
        (folder / "answers.jsonl").write_text(text, encoding="utf-8")
        write(folder, data={"demonstrations": "answers.jsonl"}, sft={"max_steps": 2, "global_batch_size": 8})
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
