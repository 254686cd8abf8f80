"""Count the bytes that each of several processes reads of weights, where the processes see one folder (Linux).

PPO of adapters runs with small models and with large ones; the difference is what the large ones cost, of which every
process is to read its part, and 5 % more. The policy is a bare folder, the reward model an artifact with its manifest.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

from support.folders import write_folder
from support.gang import Gang, ended, write

LARGE = {
    "hidden_size": 2048,
    "intermediate_size": 16384,
    "num_hidden_layers": 1,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
}
EXTRA = 0.05


def read_until_the_end(started: "Sequence[subprocess.Popen[str]]") -> list[int]:
    """Return what proc(5) last said of each process's reading."""
    counts = [0] * len(started)
    while any(process.poll() is None for process in started):
        for index, process in enumerate(started):
            try:
                counts[index] = int(Path(f"/proc/{process.pid}/io").read_text(encoding="ascii").split()[1])
            except (OSError, IndexError):
                continue
        time.sleep(0.02)
    for code, output in ended(started):
        if code:
            sys.exit(f"ended with {code}:\n{output}")
    return counts


def main() -> None:
    """Run, count, compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, default=4)
    given = parser.parse_args()
    counts: dict[str, list[int]] = {}
    with tempfile.TemporaryDirectory(prefix="podium-bytes-") as name:
        for size in ("small", "large"):
            folder = Path(name, size)
            folder.mkdir()
            steps = {"max_steps": 1, "save_steps": 2, "global_batch_size": 8}
            write(folder, reward={"lora": None, **steps}, ppo={"lora": {"r": 2}, **steps})
            if size == "large":
                write_folder(folder / "base", **LARGE)
            gang = Gang(folder, given.processes)
            for stage in ("prepare", "reward", "ppo"):
                counts[size] = read_until_the_end(gang.start(stage))
        models = [Path(name, "large", "base"), gang.out / "reward" / "reward_model"]
        weights = sum(Path(model, "model.safetensors").stat().st_size for model in models)
        shares = [(large - small) / weights for large, small in zip(counts["large"], counts["small"], strict=True)]
        print(f"of {weights / 1e6:.0f} MB: {', '.join(f'{share:.1%}' for share in shares)} by process", flush=True)
        if max(shares) > 1 / given.processes + EXTRA:
            sys.exit(f"more than {1 / given.processes + EXTRA:.0%}")


if __name__ == "__main__":
    main()
