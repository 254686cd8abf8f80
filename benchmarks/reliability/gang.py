"""End one of several processes at random moments of PPO, start all again, and compare the last bytes.

How: kill (SIGKILL), stop (SIGSTOP: frozen, sends no heartbeat), sleep (alive, asleep for ever in Python) or term
(SIGTERM, a notice to all). Prints a line per case: how the others ended and how long that took, and the counts.
"""

import argparse
import collections
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

from support.gang import Gang, ended, write

WAYS = ("kill", "stop", "sleep", "term")
STEPS = 12
# Read by Python when it starts: the third call of steps that ends here is the last.
ASLEEP = """
import sys, time
class Finder:
    def find_spec(self, name, path, target=None):
        if name == "podium.training.loop":
            sys.meta_path.remove(self)
            from podium.parallel.step_clock import StepClock
            tick = StepClock.tick
            def asleep(self):
                tick(self)
                if self._calls == 3:
                    time.sleep(1e6)
            StepClock.tick = asleep
sys.meta_path.insert(0, Finder())
"""
ENDS = {"kill": (75, 134, -signal.SIGABRT), "stop": (75, 134, -signal.SIGABRT), "sleep": (75,), "term": (75,)}


def begin(gang: Gang, whole: Gang) -> None:
    """Give a gang what the stages before PPO left."""
    gang.out.mkdir()
    for stage in ("prepare", "reward"):
        (gang.out / stage).symlink_to(whole.out / stage)


def strike(gang: Gang, way: str, rng: random.Random, seconds: float) -> tuple[list[int], float]:
    """Start PPO and end one process somewhere; return how the others ended, and after how many seconds."""
    victim = rng.randrange(gang.processes)
    settings = {"PYTHONPATH": str(gang.folder / "asleep")} if way == "sleep" else {}
    started = gang.start("ppo", f"ppo.max_steps={STEPS}", "platform.step_timeout=8", settings={victim: settings})
    others = [process for index, process in enumerate(started) if index != victim]
    if way == "sleep":
        while all(process.poll() is None for process in started):
            time.sleep(0.1)
        at = time.monotonic()
    else:
        time.sleep(rng.uniform(0.3, 0.95) * seconds)
        at = time.monotonic()
        started[victim].send_signal({"kill": signal.SIGKILL, "stop": signal.SIGSTOP, "term": signal.SIGTERM}[way])
    codes = [code for code, _ in ended(others, timeout=180)]
    took = time.monotonic() - at
    started[victim].send_signal(signal.SIGCONT)
    started[victim].kill()
    started[victim].communicate()
    return codes, took


def one_case(folder: Path, way: str, number: int, processes: int, rng: random.Random, seconds: float) -> bool:
    """Strike, start again, compare with the run that nobody ended; returns whether the strike landed."""
    whole, gang = Gang(folder, processes, name="whole"), Gang(folder, processes, name=f"{way}{number}")
    begin(gang, whole)
    codes, took = strike(gang, way, rng, seconds)
    landed = any(codes) or way == "kill"
    if any(code not in (*ENDS[way], 0) for code in codes):
        sys.exit(f"{way} {number}: the others ended with {codes}")
    for code, output in gang.run("ppo", f"ppo.max_steps={STEPS}"):
        if code:
            sys.exit(f"{way} {number}: started again, it ended with {code}:\n{output}")
    policy = Path("ppo", "policy", "model.safetensors")
    same = (gang.out / policy).read_bytes() == (whole.out / policy).read_bytes()
    print(f"{way} {number}: the others ended with {codes} after {took:.1f} s; equal bytes: {same}", flush=True)
    if not same:
        sys.exit("the weights differ")
    return landed


def main() -> None:
    """End, start again, compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--cases", type=int, default=2, help="of each way (2)")
    parser.add_argument("--way", action="append", choices=WAYS, help="only these")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    rng, counts = random.Random(given.seed), collections.Counter[str]()
    with tempfile.TemporaryDirectory(prefix="podium-gang-") as name:
        folder = Path(name)
        write(folder, ppo={"max_steps": STEPS, "save_steps": 1})
        (folder / "asleep").mkdir()
        (folder / "asleep" / "sitecustomize.py").write_text(ASLEEP, encoding="utf-8")
        whole = Gang(folder, given.processes, name="whole")
        for stage in ("prepare", "reward", "ppo"):
            for code, output in whole.run(stage):
                if code:
                    sys.exit(f"{stage} ended with {code}:\n{output}")
        # Once more, compiled: how long a start takes.
        again = Gang(folder, given.processes, name="again")
        begin(again, whole)
        at = time.monotonic()
        again.run("ppo")
        seconds = time.monotonic() - at
        for way in given.way or WAYS:
            for number in range(given.cases):
                counts[way] += one_case(folder, way, number, given.processes, rng, seconds)
    print(", ".join(f"{way}: {count} landed" for way, count in counts.items()) + "; 0 differing bytes")


if __name__ == "__main__":
    try:
        main()
    except subprocess.TimeoutExpired as late:
        sys.exit(f"still there after {late.timeout} s: {late.cmd}")
