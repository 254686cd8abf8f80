"""Compare the speed of training with TRL: the same work, each side in a process of its own, one after the other."""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cases import CASES, THREADS, Case, to_dict

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    results = []
    print(machine(), flush=True)
    for name in options.only or CASES:
        results.append(compare(name, CASES[name], options.peers, options.rounds))
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps({"machine": machine(), "results": results}, indent=2) + "\n")
    print("\n" + table(results))
    print(f"\n{options.json}")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers", type=Path, default=ROOT / "build" / "peers", help="folder of the trl-VERSION venvs")
    parser.add_argument("--only", action="append", choices=CASES, metavar="NAME", help=f"one of {', '.join(CASES)}")
    parser.add_argument("--rounds", type=int, default=3, help="processes of each side (3)")
    parser.add_argument("--json", type=Path, default=ROOT / "build" / "bench.json", help="where the figures go")
    return parser.parse_args(arguments)


def compare(name: str, case: Case, peers: Path, rounds: int) -> dict[str, Any]:
    """Run both sides in turn; the order changes every round, so that a drift of the machine favours neither."""
    sides = {
        "podium": (sys.executable, HERE / "podium_side.py"),
        "trl": (peers / f"trl-{case.peer}" / "bin" / "python", HERE / "trl_side.py"),
    }
    medians: dict[str, list[float]] = {side: [] for side in sides}
    versions: dict[str, str] = {}
    loads = []
    for turn in range(rounds):
        for side in sorted(sides, reverse=bool(turn % 2)):
            loads.append(os.getloadavg()[0])
            result = measure(case, *sides[side])
            versions |= result["versions"]
            medians[side].append(statistics.median(result["seconds"]))
            print(f"{name} round {turn + 1} {side}: {case.batch / medians[side][-1]:.1f} {case.unit}", flush=True)
    return {"name": name, "case": to_dict(case), "versions": versions, "load": loads} | summary(case, medians)


def measure(case: Case, python: str | Path, script: Path) -> dict[str, Any]:
    """Run a case in a fresh process; raises SystemExit with the end of what it printed where it fails."""
    with tempfile.TemporaryDirectory() as folder:
        given, result = Path(folder, "case.json"), Path(folder, "result.json")
        given.write_text(json.dumps(to_dict(case)))
        # Podium asks for huge pages by itself; TRL gets them too.
        env = {**os.environ, "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
        done = subprocess.run([python, script, given, result], capture_output=True, text=True, env=env)
        if done.returncode:
            raise SystemExit(f"{script.name} failed:\n{(done.stdout + done.stderr)[-4000:]}")
        return json.loads(result.read_text())


def summary(case: Case, medians: dict[str, list[float]]) -> dict[str, Any]:
    """Rates are medians over the rounds; so is the ratio, of the two sides of each round."""
    rates = {side: statistics.median(case.batch / second for second in seconds) for side, seconds in medians.items()}
    ratios = [trl / podium for podium, trl in zip(medians["podium"], medians["trl"], strict=True)]
    return {
        "seconds_per_step": medians,
        "podium": rates["podium"],
        "trl": rates["trl"],
        "ratio": statistics.median(ratios),
        "ratio_range": [min(ratios), max(ratios)],
    }


def table(results: Sequence[dict[str, Any]]) -> str:
    """The figures, each followed by every difference in the work."""
    lines = [f"{'':20} {'Podium':>8} {'TRL':>8} {'':10} {'ratio':>6} {'(range)':>14} {'target':>7}"]
    for result in results:
        case = CASES[result["name"]]
        low, high = result["ratio_range"]
        lines.append(
            f"{result['name']:20} {result['podium']:8.2f} {result['trl']:8.2f} {case.unit:10} "
            f"{result['ratio']:6.2f} {f'({low:.2f}-{high:.2f})':>14} {case.target:7.1f}"
        )
        lines += [f"    - {difference}" for difference in case.differences]
        lines.append("    " + ", ".join(f"{name} {number}" for name, number in result["versions"].items()))
    return "\n".join(lines)


def machine() -> str:
    """The processor, how much of it is used, and how busy the machine is with other work."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return (
        f"{now}; {model}, {os.cpu_count()} processors, {THREADS} used by each side; "
        f"Python {platform.python_version()}; load {os.getloadavg()[0]:.1f}"
    )


if __name__ == "__main__":
    main()
