"""Compare speed with TRL and transformers: the same work, each side in a process of its own, one after the other."""

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

from podium.parallel.runtime import HUGE_PAGES, SETTINGS, TUNABLES

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


def sides(case: Case, peers: Path) -> dict[str, tuple[str | Path, Path]]:
    """The interpreter and the script of Podium's side and of the other."""
    podium, other = "podium_side.py", "trl_side.py"
    if case.kind == "generate":
        podium, other = "podium_generate.py", "transformers_generate.py"
    elif case.shape.decoder_layers:
        other = "trl_encoder_decoder.py"
    python = peers / f"trl-{case.peer}" / "bin" / "python"
    return {"podium": (sys.executable, HERE / podium), "peer": (python, HERE / other)}


def compare(name: str, case: Case, peers: Path, rounds: int) -> dict[str, Any]:
    """Run both sides in turn; the order changes every round, so that a drift of the machine favours neither."""
    scripts = sides(case, peers)
    medians: dict[str, list[float]] = {side: [] for side in scripts}
    ids: dict[str, list[list[int]]] = {}
    versions: dict[str, str] = {}
    loads, rates = [], []
    for turn in range(rounds):
        if case.kind == "generate":
            rates.append(memory_rate())
        for side in sorted(scripts, reverse=not turn % 2):
            loads.append(os.getloadavg()[0])
            result = measure(case, *scripts[side])
            versions |= result["versions"]
            ids[side] = result.get("ids", [])
            medians[side].append(statistics.median(result["seconds"]))
            shown = side if side == "podium" else case.other
            print(f"{name} round {turn + 1} {shown}: {rate(case, medians[side][-1]):.1f} {case.unit}", flush=True)
    result = {"name": name, "case": to_dict(case), "versions": versions, "load": loads} | summary(case, medians)
    if case.kind == "generate":
        result |= traffic(case, medians, max(rates)) | {"same_tokens": same_tokens(ids["podium"], ids["peer"])}
    return result


def measure(case: Case, python: str | Path, script: Path) -> dict[str, Any]:
    """Run a case in a fresh process; raises SystemExit with the end of what it printed where it fails."""
    with tempfile.TemporaryDirectory() as folder:
        given = Path(folder, "case.json")
        given.write_text(json.dumps(to_dict(case)))
        return run_script(python, script, given)


def run_script(python: str | Path, script: Path, *arguments: Path) -> dict[str, Any]:
    """Read what a script wrote into the file that is its last argument."""
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder, "result.json")
        # Podium sets its allocator up by itself. The other side gets its huge pages; the rest slows torch down: TRL's
        # reward training to two thirds (docs/benchmarks.md).
        env = {**os.environ, TUNABLES: f"{HUGE_PAGES}={SETTINGS[HUGE_PAGES]}"}
        done = subprocess.run([python, script, *arguments, result], capture_output=True, text=True, env=env)
        if done.returncode:
            raise SystemExit(f"{script.name} failed:\n{(done.stdout + done.stderr)[-4000:]}")
        return json.loads(result.read_text())


def memory_rate() -> float:
    """Bytes per second that THREADS processors read from memory."""
    return float(run_script(sys.executable, HERE / "bandwidth.py")["bytes_per_second"])


def rate(case: Case, seconds: float) -> float:
    return case.units_per_step / seconds


def summary(case: Case, medians: dict[str, list[float]]) -> dict[str, Any]:
    """Rates are medians over the rounds; so is the ratio, of the two sides of each round."""
    rates = {side: statistics.median(rate(case, second) for second in seconds) for side, seconds in medians.items()}
    ratios = [peer / podium for podium, peer in zip(medians["podium"], medians["peer"], strict=True)]
    return {
        "seconds_per_step": medians,
        "podium": rates["podium"],
        "peer": rates["peer"],
        "ratio": statistics.median(ratios),
        "ratio_range": [min(ratios), max(ratios)],
    }


def traffic(case: Case, medians: dict[str, list[float]], memory: float) -> dict[str, Any]:
    """How fast each side reads weights, in bytes per second: once for the prompts and once per later token."""
    read = case.shape.weight_bytes * case.response
    return {
        "memory_bytes_per_second": memory,
        "weights_bytes_per_second": {side: read / statistics.median(times) for side, times in medians.items()},
    }


def same_tokens(first: list[list[int]], second: list[list[int]]) -> float:
    """Share of the tokens, by place, that both sides wrote."""
    pairs = [pair for rows in zip(first, second, strict=True) for pair in zip(*rows, strict=True)]
    return sum(one == other for one, other in pairs) / len(pairs)


def table(results: Sequence[dict[str, Any]]) -> str:
    """The figures, each followed by every difference in the work."""
    lines = [f"{'':20} {'Podium':>8} {'other':>8} {'':10} {'ratio':>6} {'(range)':>14} {'target':>7}"]
    for result in results:
        case = CASES[result["name"]]
        low, high = result["ratio_range"]
        lines.append(
            f"{result['name']:20} {result['podium']:8.2f} {result['peer']:8.2f} {case.unit:10} "
            f"{result['ratio']:6.2f} {f'({low:.2f}-{high:.2f})':>14} {case.target:7.1f}"
        )
        lines += memory_lines(result) if case.kind == "generate" else []
        lines += [f"    - {difference}" for difference in case.differences]
        lines.append("    " + ", ".join(f"{name} {number}" for name, number in result["versions"].items()))
    return "\n".join(lines)


def memory_lines(result: dict[str, Any]) -> list[str]:
    memory = result["memory_bytes_per_second"]
    reads = {side: result["weights_bytes_per_second"][side] for side in ("podium", "peer")}
    shares = " and ".join(f"{read / 1e9:.1f} GB/s ({read / memory:.0%})" for read in reads.values())
    return [
        f"    weights read at {shares} of the {memory / 1e9:.1f} GB/s at which NumPy reads memory with as many threads",
        f"    {result['same_tokens']:.1%} of the tokens are the same on both sides",
    ]


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
