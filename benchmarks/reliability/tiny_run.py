"""Every stage of a run, one after another in this process, through the command line, on a model of two random layers.

python benchmarks/reliability/tiny_run.py FOLDER is what kill.py and disk_full.py start; it goes on where it was.
KILL_AT=N ends it by SIGKILL before its Nth change of a file below FOLDER.
"""

import argparse
import json
import os
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from podium.config import STAGE_TABLE
from podium.training.metrics import read_metrics, without_clock

ROOT = Path(__file__).resolve().parents[2]
# Compiled once for all starts, and without optimisation: what is under test is files.
SETTINGS = {
    "JAX_PLATFORMS": "cpu",
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "XLA_FLAGS": "--xla_backend_optimization_level=0 --xla_cpu_prefer_vector_width=512",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1:glibc.malloc.top_pad=67108864",
}
# Of a config without demonstrations.
STAGES = tuple(stage for stage in STAGE_TABLE if stage != "sft")
_CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link", "os.symlink"}


def environment(folder: Path) -> dict[str, str]:
    """Return the environment of a start, whose compiled programs are kept in `folder`."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, **SETTINGS, "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"), "PYTHONPATH": path}


def write_inputs(folder: Path) -> Path:
    """Write a model, data and a config, and return the config's path."""
    sys.path.insert(0, str(ROOT / "tests"))
    from support.folders import write_folder

    write_folder(folder / "base")
    pairs = [{"prompt": f"question {i}", "chosen": f"yes, please {i}", "rejected": f"no {i} no no"} for i in range(24)]
    prompts = [{"prompt": f"ask {i}"} for i in range(24)]
    for name, rows in (("pairs", pairs), ("prompts", prompts)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    lora = {"r": 2, "layers": 1}
    steps = {"max_steps": 4, "save_steps": 1, "per_device_batch_size": 4, "learning_rate": 0.01, "lora": lora}
    config: dict[str, Any] = {
        "model": {"name_or_path": "base"},
        "data": {"preferences": "pairs.jsonl", "prompts": "prompts.jsonl", "max_prompt_length": 40, "max_length": 64},
        "sample": {"max_new_tokens": 4, "batch_size": 4},
        "reward": steps,
        "ppo": {**steps, "num_ppo_epochs": 1, "max_new_tokens": 4},
        "evaluation": {"batch_size": 4},
        "export": {"verify": "never"},
    }
    (folder / "rlhf.json").write_text(json.dumps(config), encoding="utf-8")
    return folder / "rlhf.json"


def places(stage: str, out: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Return the inputs and outputs of a stage of the run in `out`."""
    spec = STAGE_TABLE[stage]
    return (
        {one.name: str(out / one.stage / one.output) for one in spec.takes if not one.optional},
        {name: str(out / stage / name) for name in outputs_of(stage)},
    )


def outputs_of(stage: str) -> tuple[str, ...]:
    """Return the names of a stage's outputs in such a run."""
    return tuple(name for name in STAGE_TABLE[stage].outputs if name != "demonstrations")


def contents(out: Path) -> dict[str, Any]:
    """Return what a finished run holds, without what differs in every run: times, and digests of files with times."""
    found: dict[str, Any] = {}
    for path in sorted(out.rglob("*")):
        name = path.relative_to(out).as_posix()
        if not path.is_file() or "tensorboard" in path.parts or path.name == "report":
            continue
        if path.name == "metrics.jsonl":
            found[name] = [without_clock(row) for row in read_metrics(path.parent)]
        elif path.name == "manifest.json":
            values = json.loads(path.read_text(encoding="utf-8"))
            # TensorBoard's files have the time in their names.
            files = sorted(file for file in values["files"] if not file.startswith("tensorboard/"))
            found[name] = [values["stage"], values["config"], files]
        elif path.name == "README.md":
            # The model card names the digests of PPO's inputs, and a reward model holds its metrics.jsonl.
            found[name] = re.sub("sha256 [0-9a-f]{64}", "sha256", path.read_text(encoding="utf-8"))
        else:
            found[name] = path.read_bytes()
    return found


def damaged(out: Path) -> list[str]:
    """Return the outputs that say they are complete and are not."""
    from podium.stages.manifest import first_damage, read_manifest

    bad = []
    for stage in STAGES:
        for name in outputs_of(stage):
            manifest = read_manifest(out / stage / name)
            if manifest is not None and (damage := first_damage(out / stage / name, manifest)):
                bad.append(damage)
    return bad


def _die_at(number: int, out: Path, at: Callable[[], None]) -> None:
    """Call `at` before the `number`th change of a file below `out`; leave the count in CHANGES, if that is set."""
    seen, prefix, log = 0, str(out), os.environ.get("CHANGES")

    def hook(event: str, args: tuple[Any, ...]) -> None:
        nonlocal seen
        if event == "open":
            changes = isinstance(args[2], int) and bool(args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
        else:
            changes = event in _CHANGES
        if not changes or not isinstance(args[0], str | os.PathLike) or not os.fspath(args[0]).startswith(prefix):
            return
        seen += 1
        if seen == number:
            at()

    sys.addaudithook(hook)
    if log is not None:
        import atexit

        atexit.register(lambda: Path(log).write_text(str(seen), encoding="utf-8"))


def main() -> None:
    """Run every stage; leave as `podium` does where one fails."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="of rlhf.json; outputs go to FOLDER/out, or to --out")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    out = (given.out or given.folder / "out").absolute()
    if "KILL_AT" in os.environ or "CHANGES" in os.environ:
        _die_at(int(os.environ.get("KILL_AT", 0)), out, lambda: os.kill(os.getpid(), signal.SIGKILL))
    from podium.cli import main as podium

    for stage in STAGES:
        inputs, outputs = places(stage, out)
        arguments = [f"--input={name}={place}" for name, place in inputs.items()]
        arguments += [f"--output={name}={place}" for name, place in outputs.items()]
        sys.argv = ["podium", stage, f"--config={given.folder}/rlhf.json", *arguments]
        try:
            podium()
        except SystemExit as end:
            if end.code:
                raise


if __name__ == "__main__":
    main()
