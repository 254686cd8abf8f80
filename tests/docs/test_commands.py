"""Every command in the documentation is run, or checked as far as it can be without hours or a cluster.

A command that no rule below knows fails the test: whoever writes one into a page says here how it is known to work.
"""

import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from podium.config import load_config
from podium.errors import UserError
from support import documents, folders
from support.documents import ROOT, Command

COMMANDS = [command for document in documents.documents() for command in documents.commands(document)]
BIN = Path(sys.executable).parent

# Run as they stand: each takes a second or two.
RUN = {"init", "validate", "schema", "compile", "doctor"}
# Minutes of work: their options are checked here, and the test named runs the same on something small.
ELSEWHERE = {
    "run": "tests/kfp/test_run.py",
    "import-weights": "tests/convert",
    "plan": "tests/planning",
    **dict.fromkeys(("submit", "status", "cancel", "logs", "runs", "collect"), "tests/kfp"),
    **dict.fromkeys(("prepare", "sft", "reward", "sample", "ppo", "evaluate", "export", "gates"), "tests/stages"),
}
# What belongs to the reader's machine, not to the project.
READERS_OWN = (
    r"git clone \S+",
    r"cd [\w./-]+",
    r"source \.venv/bin/activate",
    r"(sudo )?apt(-get)? install .*",
    r"docker (push|tag) .*",
    r"tensorboard --logdir \S+",
    r"podium --install-completion",
)


@pytest.fixture
def sandbox(tmp_path: Path) -> Path:
    """Return a folder that looks like the repository to a command, and that it may write into."""
    for name in ("examples", "pipelines", "components", "benchmarks", "tests", "Makefile", "pyproject.toml"):
        (tmp_path / name).symlink_to(ROOT / name)
    # The model that `make demo` imports: what is looked for before a run.
    model = tmp_path / "build" / "models" / "smollm2-135m-instruct"
    model.mkdir(parents=True)
    folders.write_json(model / "config.json", folders.CONFIG)
    (model / "model.safetensors").touch()
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "bin").symlink_to(BIN)
    return tmp_path


def write_shown_files(document: Path, folder: Path) -> None:
    """Write the files that a document shows under a name, so that its commands find them."""
    for block in documents.blocks(document):
        if block.title:
            path = folder / block.title
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text + "\n", encoding="utf-8")


def call(words: list[str], folder: Path) -> str:
    """Run a command with the tested environment first on the path; return what it printed."""
    environment = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "COLUMNS": "200"}
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, f"{shlex.join(words)} ended with {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


def is_synopsis(words: list[str]) -> bool:
    """Say whether a command shows its form (CONFIG, [--out DIR], a|b) and not a use."""
    return any(re.fullmatch(r"[A-Z]{4,}|\[.*|.*\]|\w+\|.*", word) for word in words)


def check_podium(words: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    verb = words[0] if words else "--help"
    if verb.startswith("-") or (verb in RUN and not is_synopsis(words)):
        call(["podium", *words], folder)
        return
    assert verb in RUN | ELSEWHERE.keys(), f"say in ELSEWHERE which test runs podium {verb}"
    assert (ROOT / ELSEWHERE.get(verb, "tests/docs")).exists()
    if is_synopsis(words):
        options = re.findall(r"--[a-z-]+", " ".join(words))
        shown = call(["podium", verb, "--help"], folder)
        assert [option for option in options if option not in shown] == []
        return
    # click refuses unknown verbs and options before it prints help; nothing else of the command runs.
    call(["podium", *words, "--help"], folder)
    if verb == "run":
        monkeypatch.chdir(folder)
        load_config(words[1], [word for word in words[2:] if re.match(r"[a-z_.]+=", word)])


def check_make(words: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    printed = call(["make", "--dry-run", "--always-make", *words], ROOT)
    for line in printed.splitlines():
        if line.startswith((".venv/bin/podium run", ".venv/bin/podium import-weights")):
            check_podium(shlex.split(line)[1:], folder, monkeypatch)


def check_pip(words: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (wanted,) = [word for word in words[1:] if not word.startswith("-")]
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    named = re.fullmatch(r"(\.|podium)(\[(?P<extras>[\w,]+)\])?", wanted)
    assert named, f"{wanted} is not this project"
    assert words[0] == "install"
    assert set((named["extras"] or "").split(",")) <= extras.keys() | {""}


def check_python(words: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if words[:2] == ["-m", "pytest"]:
        paths = [word for word in words[2:] if word.startswith("tests/")]
        assert paths
        assert [path for path in paths if not (ROOT / path).exists()] == []
        return
    if words[0] == "-m":
        call([sys.executable, *words[:2], "--help"], ROOT)
        return
    call([sys.executable, str(ROOT / words[0]), "--help"], folder)


def check_tool(words: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert words == ["format", "."] or words == ["install"]


Check = Callable[[list[str], Path, pytest.MonkeyPatch], None]
CHECKS: dict[str, Check] = {
    "podium": check_podium,
    "make": check_make,
    "pip": check_pip,
    "python": check_python,
    "ruff": check_tool,
    "pre-commit": check_tool,
}


def check(command: Command, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run or check one command; raise AssertionError where it is wrong or unknown."""
    if any(re.fullmatch(pattern, command.text) for pattern in READERS_OWN):
        return
    program, *rest = command.words
    program = program.removeprefix(".venv/bin/")
    assert program in CHECKS, f"no rule here says how {command} is known to work"
    CHECKS[program](rest, folder, monkeypatch)


def test_documentation_has_commands() -> None:
    shown = {command.text for command in COMMANDS}
    assert {"make demo", "make test", "podium validate mydata/rlhf.yaml"} <= shown


@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_command_works(command: Command, sandbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_shown_files(command.document, sandbox)
    check(command, sandbox, monkeypatch)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("podium dance", "say in ELSEWHERE"),
        ("podium run examples/courteous/rlhf.yaml --sideways", "No such option: --sideways"),
        ("podium run examples/courteous/rlhf.yaml ppo.max_stepz=3", "max_steps"),
        ("podium run nowhere.yaml", "nowhere.yaml"),
        ("podium validate nowhere.yaml", "nowhere.yaml"),
        ("podium compile CONFIG --target TARGET --sideways", "--sideways"),
        ("make tea", "No rule to make target 'tea'"),
        ("pip install podium[tea]", "tea"),
        ("python -m pytest tests/tea", "tests/tea"),
        ("python benchmarks/tea.py", "tea.py"),
        ("ruff dance", "dance"),
        ("kubectl get pods", "no rule here"),
    ],
)
def test_a_wrong_command_is_found(text: str, complaint: str, sandbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises((AssertionError, UserError), match=re.escape(complaint)):
        check(Command(ROOT / "README.md", 1, text), sandbox, monkeypatch)
