"""Compare the speed of two commits: Podium's side of the cases alone, the commits taking turns in one run."""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cases import CASES, Case, to_dict
from run import HERE, ROOT, machine, rate, run_script


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    print(machine(), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        trees = {name: check_out(commit, Path(folder, name)) for name, commit in vars(options).items() if name in SIDES}
        try:
            results = [compare(name, CASES[name], trees, options.rounds) for name in options.only or CASES]
        finally:
            for tree in trees.values():
                subprocess.run(["git", "worktree", "remove", "--force", tree], cwd=ROOT, check=True)
    print("\n" + table(results))


SIDES = ("old", "new")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("old", help="commit to compare with")
    parser.add_argument("new", nargs="?", default="HEAD", help="commit that is compared (HEAD)")
    parser.add_argument("--only", action="append", choices=CASES, metavar="NAME", help=f"one of {', '.join(CASES)}")
    parser.add_argument("--rounds", type=int, default=3, help="processes of each commit (3)")
    return parser.parse_args(arguments)


def check_out(commit: str, folder: Path) -> Path:
    """Lay a commit out beside this one, with the weights that were imported here."""
    subprocess.run(["git", "worktree", "add", "--quiet", "--detach", folder, commit], cwd=ROOT, check=True)
    (folder / "build").mkdir()
    (folder / "build" / "models").symlink_to(ROOT / "build" / "models")
    return folder


def compare(name: str, case: Case, trees: dict[str, Path], rounds: int) -> dict[str, Any]:
    """Run both commits in turn; the order changes every round."""
    seconds: dict[str, list[float]] = {side: [] for side in SIDES}
    for turn in range(rounds):
        for side in SIDES if turn % 2 == 0 else reversed(SIDES):
            seconds[side].append(measure(case, trees[side]))
            print(f"{name} round {turn + 1} {side}: {rate(case, seconds[side][-1]):.2f} {case.unit}", flush=True)
    ratios = [old / new for old, new in zip(seconds["old"], seconds["new"], strict=True)]
    rates = {side: statistics.median(rate(case, second) for second in seconds[side]) for side in SIDES}
    return {"name": name, "unit": case.unit, "ratios": ratios} | rates


def measure(case: Case, tree: Path) -> float:
    """Median seconds of a step, in a fresh process that imports everything from this tree."""
    script = tree / HERE.name / ("podium_generate.py" if case.kind == "generate" else "podium_side.py")
    with tempfile.TemporaryDirectory() as folder:
        given = Path(folder, "case.json")
        given.write_text(json.dumps(to_dict(case)))
        os.environ["PYTHONPATH"] = str(tree)
        return statistics.median(run_script(sys.executable, script, given)["seconds"])


def table(results: Sequence[dict[str, Any]]) -> str:
    lines = [f"{'':20} {'old':>8} {'new':>8} {'':10} {'new/old':>8} {'(range)':>14}"]
    for result in results:
        ratios = result["ratios"]
        spread = f"({min(ratios):.2f}-{max(ratios):.2f})"
        lines.append(
            f"{result['name']:20} {result['old']:8.2f} {result['new']:8.2f} {result['unit']:10} "
            f"{statistics.median(ratios):8.2f} {spread:>14}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
