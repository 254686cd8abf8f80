"""The command: exit codes, messages, and what it loads.

Seen to fail: with a module-level import of podium.stages in podium.cli (heavy modules after help); with UserError left
to typer (exit code 1 and a trace); with the first line after the stage's imports.
"""

import errno
import importlib.metadata
import json
import os
import subprocess
import sys
from collections.abc import Callable
from io import TextIOWrapper
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer
import yaml

import podium.cli
from podium.cli.stage import example
from podium.config import STAGE_TABLE, STAGES, PodiumConfig, load_config
from podium.stages.io import Result, StageIO
from podium.version import __version__
from support import folders

HEAVY = (
    "jax",
    "jaxlib",
    "flax",
    "transformers",
    "torch",
    "kfp",
    "google",
    "numpy",
    "orbax",
    "fsspec",
    "pydantic",
    "yaml",
)

VALID = "model: {name_or_path: some/model}\ndata: {preferences: a.jsonl}\n"

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Command:
    """Return a function that runs `podium ...` in this process: exit code, output, errors."""
    monkeypatch.chdir(tmp_path)
    # What a run sets for its whole process must not reach the tests after it.
    monkeypatch.setattr("podium.parallel.runtime.configure", lambda: None)

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["podium", *words])
        with pytest.raises(SystemExit) as caught:
            podium.cli.main()
        out, err = capsys.readouterr()
        code = caught.value.code
        return (code if isinstance(code, int) else 0 if code is None else 1), out, err

    return run


@pytest.fixture
def stage_module(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Callable[[PodiumConfig, StageIO], Result]], None]:
    """Return a function that puts a stand-in where a stage's module would be imported from."""

    def put(stage: str, run: Callable[[PodiumConfig, StageIO], Result]) -> None:
        monkeypatch.setitem(sys.modules, f"podium.stages.{stage}", SimpleNamespace(run=run))

    return put


def test_help_is_fast_and_loads_nothing_heavy() -> None:
    program = (
        "import sys, time; before = set(sys.modules);"
        "from podium.cli import main; sys.argv = ['podium', '--help'];"
        "\ntry: main()\nexcept SystemExit as end: assert not end.code"
        f"\nprint([name for name in {HEAVY!r} if name in sys.modules.keys() - before], file=sys.stderr)"
        "\nprint(time.process_time(), file=sys.stderr)"
    )
    times = []
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        heavy, seconds = done.stderr.splitlines()
        assert heavy == "[]"
        times.append(float(seconds))
    # Processor time of the whole process: the wall clock of a busy machine says nothing, and one process beside it
    # can double even this. Measured: 0.14 s.
    assert min(times) < 0.3
    for verb in ("run", "compile", "init", "validate", "schema", "import-weights", "doctor", *STAGE_TABLE):
        assert f"\n  {verb} " in done.stdout


@pytest.mark.parametrize("verb", ["init", "validate", "schema", "import-weights", "doctor", *STAGES])
def test_every_verb_explains_itself_with_an_example(command: Command, verb: str) -> None:
    code, out, _ = command(verb, "--help")
    assert code == 0
    assert f"Example:  podium {verb}" in " ".join(out.split()).replace("Example: ", "Example:  ")


def example_places(stage: str) -> dict[str, str]:
    """Return the artifacts of a stage's example, as {"--input NAME": PLACE}."""
    words = example(stage).split()[4:]
    pairs = zip(words[::2], words[1::2], strict=True)
    return {f"{option} {pair.partition('=')[0]}": pair.partition("=")[2] for option, pair in pairs}


@pytest.mark.parametrize("stage", STAGES)
def test_the_example_of_a_stage_takes_what_the_examples_before_it_make(stage: str) -> None:
    spec, places = STAGE_TABLE[stage], example_places(stage)
    needed = {one.name: one for one in spec.takes if not one.optional}
    outputs = [f"--output {name}" for name in spec.outputs if name != "metrics"]
    assert list(places) == [f"--input {name}" for name in needed] + outputs
    for name, one in needed.items():
        assert places[f"--input {name}"] == example_places(one.stage)[f"--output {one.output}"]


def test_version(command: Command) -> None:
    assert command("--version") == (0, f"podium {__version__}\n", "")


def test_python_m_podium_is_the_same_program() -> None:
    done = subprocess.run([sys.executable, "-m", "podium", "--version"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, f"podium {__version__}\n")


@pytest.mark.parametrize(
    ("text", "overrides", "expected"),
    [
        (None, [], "rlhf.yaml: no such file; name the YAML file of the run"),
        (
            "reward: {learing_rate: 1}",
            [],
            "rlhf.yaml:3: reward.learing_rate: unknown key; did you mean 'learning_rate'?",
        ),
        ("ppo: {max_steps: soon}", [], "rlhf.yaml:3: ppo.max_steps: write a whole number, not 'soon'"),
        ("", ["ppo.max_stps=3"], "override 'ppo.max_stps=3': ppo.max_stps: unknown key; did you mean 'max_steps'?"),
        ("", ["ppo"], "override 'ppo': write KEY=VALUE, such as ppo.kl_coef=0.05"),
        ("ppo: {max_steps: 3", [], "rlhf.yaml:4: not valid YAML: expected ',' or '}', but got '<stream end>'"),
    ],
)
@pytest.mark.parametrize("verb", ["validate", "reward"])
def test_a_mistake_in_the_config_is_one_line_and_status_2(
    command: Command, tmp_path: Path, verb: str, text: str | None, overrides: list[str], expected: str
) -> None:
    if text is not None:
        (tmp_path / "rlhf.yaml").write_text(f"{VALID}{text}\n")
    words = ["validate", "rlhf.yaml"] if verb == "validate" else ["reward", "--config", "rlhf.yaml"]
    code, out, err = command(*words, *overrides)
    assert (code, out) == (2, "")
    assert err.startswith(f"podium: error: {expected}")
    assert len(err.splitlines()) == 1
    assert os.listdir(tmp_path) == ([] if text is None else ["rlhf.yaml"])


def test_each_of_several_mistakes_is_an_error_line(command: Command, tmp_path: Path) -> None:
    (tmp_path / "rlhf.yaml").write_text(f"{VALID}ppo: {{a_1: 1, b_2: 2}}")
    code, _, err = command("validate", "rlhf.yaml")
    assert code == 2
    assert [line.split("; ")[0] for line in err.splitlines()] == [
        "podium: error: rlhf.yaml:3: ppo.a_1: unknown key",
        "podium: error: rlhf.yaml:3: ppo.b_2: unknown key",
    ]


@pytest.mark.parametrize(
    "words",
    [
        ["valdate", "x"],
        ["validate"],
        ["validate", "--nonsense", "x"],
        ["reward", "--input"],
    ],
)
def test_a_usage_error_is_status_2_without_a_trace(command: Command, words: list[str]) -> None:
    code, _, err = command(*words)
    assert code == 2
    assert "Error: " in err
    assert "Traceback" not in err


@pytest.mark.parametrize("words", [["--ppo.kl_coef=1"], ["--ppo.kl_coef", "1"]])
def test_a_value_written_as_an_option_is_told_its_form(command: Command, words: list[str]) -> None:
    code, _, err = command("run", "rlhf.yaml", *words)
    assert code == 2
    expected = "--ppo.kl_coef is no option; write ppo.kl_coef=VALUE, without --, behind CONFIG"
    assert err == f"podium: error: {expected}\n"


HUB = "Note: model.name_or_path: some/model is not checked: the Hugging Face Hub has it, or its cache here"


def test_validate_says_what_it_understood_and_what_is_not_here(command: Command, tmp_path: Path) -> None:
    (tmp_path / "rlhf.yaml").write_text(f"{VALID}ppo: {{cliprange: 0.3}}\n")
    code, out, err = command("validate", "rlhf.yaml")
    assert (code, out) == (2, "")
    assert err.splitlines() == [
        f"podium: error: rlhf.yaml:2: data.preferences: {tmp_path}/a.jsonl: no such file here; check the path"
    ]
    code, out, err = command("validate", "rlhf.yaml", "platform.target=vertex")
    assert (code, out) == (0, "rlhf.yaml: valid\n")
    assert err.splitlines() == [
        "Note: rlhf.yaml:3: ppo.cliprange is read as ppo.clip_range",
        f"Note: data.preferences.0.path: {tmp_path}/a.jsonl is not on this machine; not checked, as vertex reads it",
        HUB,
    ]
    (tmp_path / "a.jsonl").touch()
    (tmp_path / "rlhf.yaml").write_text(VALID)
    assert command("validate", "rlhf.yaml") == (0, "rlhf.yaml: valid\n", f"{HUB}\n")


def test_validate_refuses_a_model_of_a_network_that_is_not_supported(command: Command, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").touch()
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "model.safetensors").touch()
    (tmp_path / "m" / "config.json").write_text('{"model_type": "abacus"}')
    (tmp_path / "rlhf.yaml").write_text(VALID)
    code, _, err = command("validate", "rlhf.yaml", "model.name_or_path=./m")
    assert code == 2
    assert f"{tmp_path}/m/config.json: model_type 'abacus' is not supported; use a model of" in err


def test_validate_shows_a_config_that_reads_back_as_itself(command: Command, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").touch()
    (tmp_path / "rlhf.yaml").write_text(VALID)
    code, out, _ = command("validate", "rlhf.yaml", "--show", "ppo.kl_coef=0.125")
    assert code == 0
    assert yaml.safe_load(out)["ppo"]["kl_coef"] == 0.125
    (tmp_path / "shown.yaml").write_text(out)
    assert load_config(tmp_path / "shown.yaml") == load_config(tmp_path / "rlhf.yaml", ["ppo.kl_coef=0.125"])


def test_schema_is_json(command: Command) -> None:
    code, out, _ = command("schema")
    assert code == 0
    assert json.loads(out)["title"] == "PodiumConfig"


def test_a_stage_gets_config_inputs_and_outputs(command: Command, tmp_path: Path, stage_module: Any) -> None:
    seen: list[Any] = []

    def run(config: PodiumConfig, io: StageIO) -> Result:
        print("working")
        seen.append((config.seed, io.input("preferences"), io.output("reward_model")))
        (io.output("reward_model") / "weights").write_text("w")
        return Result({"accuracy": 0.5})

    stage_module("reward", run)
    (tmp_path / "preferences").mkdir()
    (tmp_path / "rlhf.yaml").write_text(VALID)
    words = ["--input", "preferences=preferences", "--output", "reward_model=out/rm", "--output", "metrics=out/metrics"]
    code, out, err = command("reward", "--config", "rlhf.yaml", *words, "seed=5")
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "podium reward: starting, model some/model",
        "working",
        "podium reward: done in 0 s",
    ]
    assert seen == [(5, tmp_path / "preferences", tmp_path / "out" / "rm")]
    assert json.loads((tmp_path / "out" / "metrics" / "metrics.json").read_text()) == {"accuracy": 0.5}
    code, out, _ = command("reward", "--config", "rlhf.yaml", *words, "seed=5")
    assert (code, len(seen)) == (0, 1)
    assert out.splitlines()[1] == "podium reward: complete for this config and these inputs; nothing to do"


def test_every_line_of_a_stage_is_seen_when_it_is_printed(command: Command, tmp_path: Path, stage_module: Any) -> None:
    def run(config: PodiumConfig, io: StageIO) -> Result:
        assert isinstance(sys.stdout, TextIOWrapper)
        (io.output("model") / "buffered").write_text(str(not sys.stdout.line_buffering))
        return Result()

    stage_module("export", run)
    (tmp_path / "policy").mkdir()
    assert command(*EXPORT)[0] == 0
    assert (tmp_path / "out" / "m" / "buffered").read_text() == "False"


def test_a_stage_takes_an_optional_input(command: Command, tmp_path: Path, stage_module: Any) -> None:
    seen: list[Path] = []

    def run(config: PodiumConfig, io: StageIO) -> Result:
        seen.append(io.input("model"))
        (io.output("candidates") / "rows").write_text("r")
        return Result()

    stage_module("sample", run)
    for name in ("prompts", "tuned"):
        (tmp_path / name).mkdir()
    text = json.dumps({"model": {"name_or_path": "x"}})
    words = ["--config", text, "--input", "prompts=prompts", "--output", "candidates=out"]
    code, _, err = command("sample", *words, "--input", "model=tuned")
    assert (code, err, seen) == (0, "", [tmp_path / "tuned"])


def test_a_stage_takes_its_config_as_json_text(command: Command, tmp_path: Path, stage_module: Any) -> None:
    def run(config: PodiumConfig, io: StageIO) -> Result:
        (io.output("model") / "config.json").write_text(config.export.dtype)
        return Result()

    stage_module("export", run)
    (tmp_path / "policy").mkdir()
    text = json.dumps({"model": {"name_or_path": "x"}, "export": {"dtype": "bfloat16"}})
    code, _, err = command("export", "--config", text, "--input", "policy=policy", "--output", "model=model")
    assert (code, err) == (0, "")
    assert (tmp_path / "model" / "config.json").read_text() == "bfloat16"
    code, _, err = command("export", "--config", '{"model": {"name_or_path": "x", "dtyp": 1}}')
    assert code == 2
    assert err.startswith("podium: error: --config:1: model.dtyp: unknown key; ")


def test_a_stage_speaks_the_protocol_of_kfp(command: Command, tmp_path: Path, stage_module: Any) -> None:
    def run(config: PodiumConfig, io: StageIO) -> Result:
        (io.output("model") / "weights").write_text("w")
        return Result(metadata={"model": {"framework": "jax"}})

    stage_module("export", run)
    (tmp_path / "policy").mkdir()
    message = {
        "inputs": {
            "parameterValues": {"config": {"model": {"name_or_path": "x"}}},
            "artifacts": {"policy": {"artifacts": [{"uri": str(tmp_path / "policy")}]}},
        },
        "outputs": {
            "artifacts": {"model": {"artifacts": [{"name": "model", "uri": str(tmp_path / "model")}]}},
            "outputFile": str(tmp_path / "executor_output.json"),
        },
    }
    for _ in range(2):
        (tmp_path / "executor_output.json").unlink(missing_ok=True)
        code, _, err = command("export", "--executor-input", json.dumps(message))
        assert (code, err) == (0, "")
        told = json.loads((tmp_path / "executor_output.json").read_text())
        assert told["artifacts"]["model"]["artifacts"][0]["metadata"]["framework"] == "jax"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], "podium reward needs --config FILE, or --executor-input JSON in a pipeline"),
        (["--config", "rlhf.yaml"], "podium reward also needs --input preferences=PATH --output reward_model=PATH"),
        (
            ["--config", "rlhf.yaml", "--input", "prefs=x"],
            "--input 'prefs=x': reward has no 'prefs'; its names are: preferences, model",
        ),
        (
            ["--config", "rlhf.yaml", "--input", "preferences"],
            "--input 'preferences': write NAME=PATH, with a name of: pre",
        ),
        (
            ["--config", "rlhf.yaml", "--input", "preferences=a", "--input", "preferences=b"],
            "--input 'preferences=b': preferences is given twice; keep one",
        ),
        (["--executor-input", "{}", "--config", "rlhf.yaml"], "--executor-input holds everything; leave --config"),
        (["--executor-input", "{}"], "--executor-input is not what KFP passes for {{$}}"),
        (
            ["--config", "rlhf.yaml", "--input", "preferences=absent", "--output", "reward_model=out"],
            "input preferences: there is nothing at ",
        ),
    ],
)
def test_a_stage_called_wrongly_says_how(command: Command, tmp_path: Path, words: list[str], expected: str) -> None:
    (tmp_path / "rlhf.yaml").write_text(VALID)
    code, _, err = command("reward", *words)
    assert code == 2
    assert err.startswith(f"podium: error: {expected}")
    assert len(err.splitlines()) == 1
    assert os.listdir(tmp_path) == ["rlhf.yaml"]


def failing(error: BaseException) -> Callable[[PodiumConfig, StageIO], Result]:
    def run(config: PodiumConfig, io: StageIO) -> Result:
        raise error

    return run


EXPORT = [
    "export",
    "--config",
    '{"model": {"name_or_path": "x"}}',
    "--input",
    "policy=policy",
    "--output",
    "model=out/m",
]


def test_a_full_disk_is_status_2(command: Command, tmp_path: Path, stage_module: Any) -> None:
    (tmp_path / "policy").mkdir()
    stage_module("export", failing(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "weights")))
    code, _, err = command(*EXPORT)
    assert (code, err) == (
        2,
        f"podium: error: {tmp_path}/out: no space left on the disk; free some, or name an output on another one\n",
    )


def test_ctrl_c_is_status_130(command: Command, tmp_path: Path, stage_module: Any) -> None:
    (tmp_path / "policy").mkdir()
    stage_module("export", failing(KeyboardInterrupt()))
    code, _, err = command(*EXPORT)
    assert code == 130
    assert "Traceback" not in err


def test_a_fault_of_ours_keeps_its_trace(command: Command, tmp_path: Path, stage_module: Any) -> None:
    (tmp_path / "policy").mkdir()
    stage_module("export", failing(ZeroDivisionError("ours")))
    with pytest.raises(ZeroDivisionError, match="ours"):
        command(*EXPORT)


def test_xla_is_configured_before_the_stage_is_imported(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage_module: Any
) -> None:
    order: list[str] = []
    (tmp_path / "policy").mkdir()
    monkeypatch.setattr("podium.parallel.runtime.configure", lambda: order.append("configure"))
    monkeypatch.setattr(
        "podium.stages.runner.importlib.import_module",
        lambda name: order.append(name) or SimpleNamespace(run=failing(ZeroDivisionError())),
    )
    with pytest.raises(ZeroDivisionError):
        command(*EXPORT)
    assert order == ["configure", "podium.stages.export"]


def test_weights_are_imported_by_podium_convert(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setitem(
        sys.modules,
        "podium.convert",
        SimpleNamespace(import_weights=lambda source, folder: seen.append((source, folder))),
    )
    monkeypatch.setattr("podium.convert", sys.modules["podium.convert"], raising=False)
    code, out, _ = command("import-weights", "package:a/b.gguf", "models/b")
    assert code == 0
    assert seen == [("package:a/b.gguf", Path("models/b"))]
    assert out.splitlines()[0] == "podium import-weights: reading package:a/b.gguf"


@pytest.mark.parametrize(
    "place",
    ["~nosuchuser/x", "x" * 300, "/".join(["d" * 100] * 50), "loop", "loop/x", "file/x", "folder", "b\udcff"],
    ids=["user", "name", "path", "loop", "in-loop", "in-file", "folder", "bytes"],
)
@pytest.mark.parametrize(
    "words",
    [
        ["validate", "PLACE"],
        ["init", "PLACE"],
        ["import-weights", "PLACE", "new"],
        ["import-weights", "folder", "PLACE"],
        ["reward", "--config", "PLACE"],
        ["export", "--config", '{"model": {"name_or_path": "x"}}', "--input", "policy=PLACE/in", "--output", "model=o"],
        ["export", "--config", '{"model": {"name_or_path": "x"}}', "--input", "policy=file", "--output", "model=PLACE"],
    ],
    ids=lambda words: f"{words[0]}-{next(word.partition('=')[0] for word in words if 'PLACE' in word)}",
)
def test_a_path_that_cannot_be_used_is_a_line_and_status_2(
    command: Command, tmp_path: Path, stage_module: Any, words: list[str], place: str
) -> None:
    """Seen to fail: a traceback for 12 of these, with paths expanded and asked for as pathlib does it."""
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "kept").touch()
    (tmp_path / "file").write_text("text")
    stage_module("export", failing(ValueError("reached the stage")))
    before = sorted(tmp_path.iterdir())
    code, _, err = command(*(word.replace("PLACE", place) for word in words))
    assert code == 2, err
    assert err.startswith("podium: error: ")
    assert len(err.splitlines()) == 1
    assert sorted(tmp_path.iterdir()) == before


def test_validate_says_where_a_home_that_nobody_has_was_written(command: Command, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text('model: {name_or_path: m}\ndata: {preferences: "~nosuchuser/a.jsonl"}\n')
    code, _, err = command("validate", "c.yaml")
    reason = "c.yaml:2: data.preferences: ~nosuchuser/a.jsonl: no such user; write the path in full"
    assert (code, err) == (2, f"podium: error: {reason}\n")


def test_a_config_in_the_home_folder_is_found(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a.jsonl").touch()
    (tmp_path / "rlhf.yaml").write_text(VALID)
    assert command("validate", "~/rlhf.yaml")[0] == 0
    assert command("init", "~/new.yaml")[1].startswith(f"Wrote {tmp_path}/new.yaml: ")


def test_init_writes_a_valid_config_and_never_over_a_file(command: Command, tmp_path: Path) -> None:
    code, out, _ = command("init")
    assert (code, out) == (0, "Wrote rlhf.yaml: set its three paths, then  podium validate rlhf.yaml\n")
    text = (tmp_path / "rlhf.yaml").read_text()
    folders.write_folder(tmp_path / "m")
    for name in ("pairs.jsonl", "prompts.jsonl"):
        (tmp_path / name).touch()
    (tmp_path / "set.yaml").write_text(text.replace("models/my-model", "m"))
    assert command("validate", "set.yaml") == (0, "set.yaml: valid\n", "")
    code, _, err = command("init")
    assert (code, err) == (2, "podium: error: rlhf.yaml: is there already; name a new file\n")
    assert (tmp_path / "rlhf.yaml").read_text() == text
    assert command("init", "none/x.yaml")[2] == (
        "podium: error: none/x.yaml: its folder is not there; make it, or name another file\n"
    )


def test_doctor_says_what_is_here_and_how_to_get_the_rest(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    lines = [
        "jax<0.11,>=0.10; extra == 'train'",
        "jax[tpu]<0.11; extra == 'tpu'",
        "pytest>9; extra == 'dev'",
        "rich>14",
    ]
    monkeypatch.setattr("importlib.metadata.requires", lambda name: lines)
    versions = {"jax": "0.10.2"}

    def version(name: str) -> str:
        if name not in versions:
            raise importlib.metadata.PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr("importlib.metadata.version", version)
    code, out, err = command("doctor")
    assert (code, err) == (0, "")
    rows = dict(
        line.split(maxsplit=1) if "extra " not in line else line.strip().split("  ", 1)
        for line in out.splitlines()
        if line.strip()
    )
    assert rows["podium"].startswith(__version__)
    assert rows["jax"].strip() == "0.10.2"
    assert "flax" not in rows
    assert rows["devices"].strip() == "8 x cpu (cpu)"
    assert "GB free of" in rows["memory"]
    assert rows["extra train"].strip() == "installed"
    assert rows["extra tpu"].strip() == "lacks libtpu; pip install 'podium[tpu]'"
    assert "extra dev" not in rows


def test_doctor_says_why_there_is_no_device(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise RuntimeError("The TPU is already in use by process 7\nand more")

    monkeypatch.setattr("jax.devices", refuse)
    code, out, _ = command("doctor")
    assert code == 0
    assert "none that JAX can use: The TPU is already in use by process 7" in " ".join(out.split())


def test_the_shell_completes_the_verbs() -> None:
    asked = {"_PODIUM_COMPLETE": "complete_bash", "COMP_WORDS": "podium va", "COMP_CWORD": "1"}
    program = "from podium.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", program], env={**os.environ, **asked}, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "validate\n", "")


def test_a_full_standard_output_is_status_2() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "podium", "schema"], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 2
    assert done.stderr.startswith("podium: error: this machine: no space left on the disk; free some")


def test_a_package_adds_its_verbs_through_an_entry_point(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def register(app: typer.Typer) -> None:
        @app.command("greet")
        def greet() -> None:
            """Greet."""
            typer.echo("hello")

    entry = SimpleNamespace(name="extra", load=lambda: register)
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: [entry] if group == "podium.commands" else [])
    assert command("greet") == (0, "hello\n", "")
    assert command("run")[0] == 2
