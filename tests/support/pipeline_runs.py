"""Start `podium run` on a small config with stages that do nothing."""

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

DRIVER = Path(__file__).parents[1] / "kfp" / "driver.py"


@dataclass(frozen=True)
class Runs:
    """Start runs of one config in one folder; the stand-in logs what it was asked to do."""

    folder: Path

    @property
    def config(self) -> Path:
        """Return the config file."""
        return self.folder / "rlhf.yaml"

    @property
    def out(self) -> Path:
        """Return the run folder."""
        return self.folder / "out"

    @property
    def events(self) -> list[str]:
        """Return what the stand-ins did, in order."""
        log = self.folder / "events.log"
        return log.read_text().splitlines() if log.exists() else []

    def start(self, *overrides: str, options: Sequence[str] = (), **stand_in: str) -> subprocess.Popen[str]:
        """Start a run; `stand_in` holds the stand-in's settings, such as FAIL."""
        settings = {f"STAND_IN_{name}": value for name, value in stand_in.items()}
        return subprocess.Popen(
            [sys.executable, str(DRIVER), *options, str(self.config), str(self.out), *overrides],
            env={**os.environ, "STAND_IN_LOG": str(self.folder / "events.log"), **settings},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def finish(self, *overrides: str, options: Sequence[str] = (), **stand_in: str) -> tuple[int, str, str]:
        """Run to the end; return exit status, output and errors."""
        process = self.start(*overrides, options=options, **stand_in)
        output, errors = process.communicate(timeout=120)
        return process.returncode, output, errors


def make_runs(folder: Path) -> Runs:
    """Write a small config and its data files into a folder."""
    (folder / "preferences.jsonl").write_text('{"prompt": "a", "chosen": "b", "rejected": "c"}\n')
    (folder / "prompts.jsonl").write_text('{"prompt": "a"}\n')
    (folder / "rlhf.yaml").write_text(
        "model: {name_or_path: tiny}\ndata: {preferences: preferences.jsonl, prompts: prompts.jsonl}\n"
    )
    return Runs(folder)
