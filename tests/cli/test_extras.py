"""A command whose extra is not installed says in one line what to install.

Each extra's commands run in one fresh process that finds none of its packages.
Seen to fail: train (a traceback) and vertex (google.cloud is there with kfp, without the part that is needed).
"""

import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from podium.config import STAGE_TABLE, STAGES

ROOT = Path(__file__).resolve().parents[2]
CONFIG = {
    "model": {"name_or_path": "no-such-model"},
    "data": {"preferences": "a.jsonl", "demonstrations": "a.jsonl"},
    "sft": {},
}
REMOTE = {"model": {"name_or_path": "gs://b/model"}, "data": {"preferences": "gs://b/a.jsonl"}}
# Runs each command of argv[2] where no package of argv[1] can be found; prints [code, errors] of each.
PROGRAM = """
import contextlib, importlib.metadata, io, json, sys
blocked, commands = json.loads(sys.argv[1]), json.loads(sys.argv[2])
class Finder:
    def find_spec(self, name, path=None, target=None):
        if any(name == one or name.startswith(one + ".") for one in blocked):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Finder())
import podium.parallel.runtime
podium.parallel.runtime.configure = lambda: None
from podium.cli import main
results = []
for words in commands:
    sys.argv = ["podium", *words]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as errors:
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        except BaseException as error:
            code, errors = 1, io.StringIO(repr(error))
    results.append([code, errors.getvalue()])
print(json.dumps(results))
"""


def results(blocked: list[str], commands: list[list[str]], folder: Path) -> list[list[Any]]:
    """Run commands in a process that lacks some packages."""
    words = [sys.executable, "-c", PROGRAM, json.dumps(blocked), json.dumps(commands)]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    found: list[list[Any]] = json.loads(done.stdout)
    return found


def packages(extra: str) -> list[str]:
    """Return the packages that an extra brings, by the names they are imported under."""
    lines = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"][extra]
    names = {"orbax-checkpoint": "orbax", "google-cloud-aiplatform": "google.cloud.aiplatform"}
    return [names.get(name, name.replace("-", "_")) for name in (line.split(">")[0] for line in lines)]


def stage_command(stage: str, config: object, place: str) -> list[str]:
    spec = STAGE_TABLE[stage]
    return [
        *(stage, "--config", json.dumps(config)),
        *(word for name in spec.inputs for word in ("--input", f"{name}={place}")),
        *(word for name in spec.outputs for word in ("--output", f"{name}=out/{name}")),
    ]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "rlhf.yaml").write_text(json.dumps(CONFIG))
    (tmp_path / "a.jsonl").write_text('{"prompt": "p", "chosen": "c", "rejected": "r"}\n')
    (tmp_path / "torch").mkdir()
    for name in ("config.json", "pytorch_model.bin"):
        (tmp_path / "torch" / name).write_text("{}")
    (tmp_path / "input").mkdir()
    return tmp_path


CASES: dict[str, list[list[str]]] = {
    "train": [
        ["run", "rlhf.yaml", "--out", "out"],
        ["import-weights", "torch", "new"],
        ["plan", "rlhf.yaml", "--topology", "v5e:2x2"],
        *(stage_command(stage, CONFIG, "input") for stage in STAGES),
    ],
    "kfp": [
        ["run", "rlhf.yaml", "--out", "out"],
        ["compile", "rlhf.yaml", "--target", "kubeflow", "--output", "out.yaml"],
        ["submit", "rlhf.yaml", "--target", "kubeflow"],
        *([verb, "1234"] for verb in ("status", "cancel", "logs")),
    ],
    "vertex": [[verb, "projects/p/locations/l/pipelineJobs/j"] for verb in ("status", "cancel", "logs")],
    "cloud": [
        stage_command("prepare", REMOTE, ""),
        stage_command("export", CONFIG, "s3://b/policy"),
    ],
}


@pytest.mark.parametrize("extra", CASES)
def test_a_missing_extra_is_a_line_with_the_command_that_installs_it(extra: str, folder: Path) -> None:
    commands = CASES[extra]
    for words, (code, errors) in zip(commands, results(packages(extra), commands, folder), strict=True):
        lines = errors.splitlines()
        assert (code, len(lines)) == (2, 1), (words, errors)
        assert lines[0].startswith("podium: error: "), words
        assert f"pip install 'podium[{extra}" in lines[0], (words, errors)
    assert not (folder / "out.yaml").exists()


def test_configs_are_checked_without_any_extra(folder: Path) -> None:
    blocked = [name for extra in ("train", "kfp", "vertex", "cloud", "import") for name in packages(extra)]
    commands = [["--help"], ["validate", "rlhf.yaml", "--show"], ["schema"], ["run", "--help"], ["ppo", "--help"]]
    assert [code for code, _ in results(blocked, commands, folder)] == [0] * len(commands)
