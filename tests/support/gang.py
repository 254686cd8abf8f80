"""Run stages as several processes on this machine, each with some of the devices, as hosts of a pod would."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from podium.config import STAGE_TABLE
from support.folders import write_folder

DEVICES = 4
# Every stage that several processes run together, in this order.
WHOLE = ("prepare", "sft", "reward", "sample", "ppo", "evaluate", "export")
# Compiled once for all starts, and without optimisation: what is under test is who does what.
SETTINGS = {
    "JAX_PLATFORMS": "cpu",
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "XLA_FLAGS": "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false "
    "--xla_cpu_prefer_vector_width=512",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}


@dataclass(frozen=True)
class Gang:
    """Runs of one config, which `write` put into a folder, by so many processes that share four devices.

    common: whether all write to one folder; else each names one of its own, and only the first one's is filled.
    """

    folder: Path
    processes: int
    common: bool = True
    name: str = "out"

    @property
    def out(self) -> Path:
        """The folder of process 0."""
        return self.folder / self.name

    def start(
        self,
        stage: str,
        *overrides: str,
        only: Mapping[int, Sequence[str]] | None = None,
        settings: Mapping[int, Mapping[str, str]] | None = None,
    ) -> "list[subprocess.Popen[str]]":
        """Start the processes of a stage with KEY=VALUE; `only` and `settings` have more of these for single ones."""
        port = free_port()
        return [
            self._process(
                index, port, [stage, *overrides, *(only or {}).get(index, ())], (settings or {}).get(index, {})
            )
            for index in range(self.processes)
        ]

    def _process(self, index: int, port: int, words: Sequence[str], more: Mapping[str, str]) -> "subprocess.Popen[str]":
        stage, *overrides = words
        here = self.out if self.common or index == 0 else self.folder / f"{self.name}.{index}"
        gang = []
        if self.processes > 1:
            gang = [f"--coordinator=localhost:{port}", f"--num-processes={self.processes}", f"--process-id={index}"]
        environment = os.environ | SETTINGS | {"JAX_COMPILATION_CACHE_DIR": str(self.folder / "compiled")}
        environment |= {"JAX_NUM_CPU_DEVICES": str(DEVICES // self.processes), **more}
        command = [sys.executable, "-m", "podium", stage, f"--config={self.folder}/rlhf.json"]
        return subprocess.Popen(
            [*command, *places(stage, self.out, here), *gang, *overrides],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, stage: str, *overrides: str, **options: Any) -> list[tuple[int, str]]:
        """Run a stage to its end; returns the exit code and the output of each process."""
        return ended(self.start(stage, *overrides, **options))


def places(stage: str, earlier: Path, here: Path) -> list[str]:
    """Return the options of a stage whose inputs lie in the folder `earlier` and whose outputs go to `here`."""
    spec = STAGE_TABLE[stage]
    inputs = [f"--input={x.name}={earlier}/{x.stage}/{x.output}" for x in spec.takes if not x.optional]
    return inputs + [f"--output={name}={here}/{stage}/{name}" for name in spec.outputs]


def ended(started: Sequence["subprocess.Popen[str]"], timeout: float = 300) -> list[tuple[int, str]]:
    """Wait for processes; returns exit code and output of each. None is left behind."""
    try:
        # At once: one that cannot write what it says would stop, and the others with it.
        with ThreadPoolExecutor(len(started)) as pool:
            outputs = list(pool.map(lambda process: process.communicate(timeout=timeout)[0], started))
    finally:
        for process in started:
            process.kill()
    return [(process.returncode, output) for process, output in zip(started, outputs, strict=True)]


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port: int = probe.getsockname()[1]
    return port


def write(folder: Path, **changes: Any) -> None:
    """Write a model of two random layers, data and rlhf.json; `changes` replace values of its sections."""
    write_folder(folder / "base")
    pairs = [{"prompt": f"question {i}", "chosen": f"yes, please {i}", "rejected": f"no {i} no no"} for i in range(24)]
    prompts = [{"prompt": f"ask {i}"} for i in range(24)]
    for name, rows in (("pairs", pairs), ("prompts", prompts)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    steps = {"max_steps": 4, "save_steps": 2, "global_batch_size": 8, "learning_rate": 0.01}
    config: dict[str, Any] = {
        "model": {"name_or_path": "base"},
        "data": {"preferences": "pairs.jsonl", "prompts": "prompts.jsonl", "max_prompt_length": 40, "max_length": 64},
        "sample": {"max_new_tokens": 4, "batch_size": 4},
        "reward": steps | {"lora": {"r": 2, "layers": 1}},
        "ppo": {**steps, "num_ppo_epochs": 1, "max_new_tokens": 4, "score_samples": 8},
        "evaluation": {"batch_size": 4},
        "export": {"verify": "never"},
        "platform": {"mesh": {"data": 2, "fsdp": 2}, "heartbeat_timeout": 10, "start_timeout": 60},
    }
    for name, values in changes.items():
        config[name] = config.get(name, {}) | values
    (folder / "rlhf.json").write_text(json.dumps(config), encoding="utf-8")


def write_whole(folder: Path) -> None:
    """Write the same for all stages of WHOLE."""
    answers = [{"prompt": f"ask {i}", "response": f"answer {i}"} for i in range(24)]
    text = "".join(json.dumps(row) + "\n" for row in answers)
    (folder / "answers.jsonl").write_text(text, encoding="utf-8")
    write(folder, data={"demonstrations": "answers.jsonl"}, sft={"max_steps": 2, "global_batch_size": 8})
