"""The verbs of this package on the `podium` command."""

import subprocess
import sys
from pathlib import Path

import pytest
import typer
import yaml
from typer.testing import CliRunner

from podium.errors import UserError
from podium_pipelines import cli, workdir
from podium_pipelines.arguments import require
from support.pipeline_runs import Runs


@pytest.fixture
def app() -> typer.Typer:
    """Return an application with nothing but this package's verbs."""
    application = typer.Typer()
    cli.register(application)
    return application


def in_fresh_python(code: str) -> str:
    """Run code in a new interpreter and return what it printed."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_registering_loads_neither_kfp_nor_the_config() -> None:
    code = (
        "import sys, typer, podium_pipelines.cli as cli; cli.register(typer.Typer());"
        "print([name for name in ('kfp', 'pydantic', 'yaml', 'rich') if name in sys.modules])"
    )
    assert in_fresh_python(code) == "[]"


def test_no_module_here_loads_a_numerical_library() -> None:
    code = (
        "import sys, podium_components, podium_pipelines.run, podium_pipelines.summary, podium_pipelines.specs;"
        "print([name for name in ('jax', 'flax', 'numpy', 'torch', 'transformers') if name in sys.modules])"
    )
    assert in_fresh_python(code) == "[]"


def test_compile_writes_a_file(app: typer.Typer, runs: Runs, tmp_path: Path) -> None:
    output = tmp_path / "pipeline.yaml"
    result = CliRunner().invoke(app, ["compile", str(runs.config), "--target", "vertex", "--output", str(output)])
    wrote = f"Wrote {output}: the pipeline for vertex (prepare, reward, sample, ppo, evaluate, export, gates)\n"
    assert (result.exit_code, result.stdout) == (0, wrote)
    assert not list(tmp_path.glob("*.tmp"))
    assert yaml.safe_load(output.read_text())["pipelineInfo"]["name"] == "rlhf"
    assert f"Note: {tmp_path}/prompts.jsonl is on this machine only; vertex needs it in a bucket" in result.stderr


def test_compile_without_a_file_prints_the_pipeline_alone(app: typer.Typer, runs: Runs) -> None:
    result = CliRunner().invoke(app, ["compile", str(runs.config), "--target", "kubeflow"])
    assert yaml.safe_load(result.stdout)["pipelineInfo"]["name"] == "rlhf"


def test_compile_asks_for_a_target_where_the_config_says_local(app: typer.Typer, runs: Runs) -> None:
    result = CliRunner().invoke(app, ["compile", str(runs.config)])
    assert isinstance(result.exception, UserError)
    assert "write --target kubeflow or vertex" in str(result.exception)


def test_an_output_that_cannot_be_written_is_said(app: typer.Typer, runs: Runs, tmp_path: Path) -> None:
    arguments = ["compile", str(runs.config), "--target", "vertex", "--output", str(tmp_path / "none" / "p.yaml")]
    result = CliRunner().invoke(app, arguments)
    assert str(result.exception) == f"--output {tmp_path}/none/p.yaml cannot be written: No such file or directory"


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("", "--output is empty; name a file"),
        ("~nosuchuser/p.yaml", "~nosuchuser/p.yaml: no such user; write the path in full"),
        ("folder", "--output folder: is a folder; name a file"),
        ("x" * 300, f"--output {'x' * 300}: the name is too long for a path; write a path, not its contents"),
        ("loop", "--output loop: symbolic links that lead back to themselves; name the file or folder itself"),
    ],
)
def test_compile_refuses_what_is_no_place_for_a_file(
    app: typer.Typer, runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: str, expected: str
) -> None:
    """Seen to fail: each, with the path read as pathlib does and no look at what is there."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    before = sorted(tmp_path.iterdir())
    result = CliRunner().invoke(app, ["compile", str(runs.config), "--target", "vertex", "--output", output])
    assert isinstance(result.exception, UserError)
    assert str(result.exception) == expected
    assert sorted(tmp_path.iterdir()) == before


def test_compile_writes_into_the_home_folder_and_behind_a_link(
    app: typer.Typer, runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "link").symlink_to("file")
    for output in ("~/p.yaml", "~/link"):
        result = CliRunner().invoke(app, ["compile", str(runs.config), "--target", "vertex", "--output", output])
        assert result.exit_code == 0
    assert (tmp_path / "file").read_text() == (tmp_path / "p.yaml").read_text() != ""
    assert (tmp_path / "link").is_symlink()


def test_compile_into_a_pipe_says_nothing_else(app: typer.Typer, runs: Runs) -> None:
    result = CliRunner().invoke(app, ["compile", str(runs.config), "--target", "vertex", "--output", "/dev/null"])
    assert (result.exit_code, result.stdout) == (0, "")


@pytest.mark.parametrize(
    ("out", "expected"),
    [
        ("", "--out is empty; name a folder"),
        ("~nosuchuser/x", "~nosuchuser/x: no such user; write the path in full"),
        ("foreign", "--out PLACE/foreign holds 'notes.txt', which no run wrote; name a new or an empty folder"),
        ("foreign/notes.txt", "--out PLACE/foreign/notes.txt: something else is there already; name another path"),
        ("foreign/notes.txt/x", "--out PLACE/foreign/notes.txt/x: a part of this path is a file, not a folder; "),
        ("loop", "--out PLACE/loop: something else is there already; name another path"),
        ("x" * 300, f"--out PLACE/{'x' * 300}: the name is too long for a path; write a path, not its contents"),
    ],
)
def test_run_refuses_what_is_no_place_for_a_run(
    app: typer.Typer, runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str, expected: str
) -> None:
    """Seen to fail: "" was the current folder, notes.txt got a run's files beside it, ~nosuchuser became a folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "notes.txt").write_text("mine")
    (tmp_path / "loop").symlink_to("loop")
    before = sorted(tmp_path.rglob("*"))
    result = CliRunner().invoke(app, ["run", str(runs.config), "--out", out])
    assert isinstance(result.exception, UserError)
    assert str(result.exception).startswith(expected.replace("PLACE", str(tmp_path)))
    assert sorted(tmp_path.rglob("*")) == before


def test_a_run_folder_in_the_home_folder_and_behind_a_link(
    app: typer.Typer, runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Path] = []
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(cli, "run_here", lambda config, overrides, out, *rest, **named: seen.append(out))
    assert CliRunner().invoke(app, ["run", str(runs.config), "--out", "~/runs/x"]).exit_code == 0
    assert seen == [tmp_path / "runs" / "x"]
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with workdir.locked(tmp_path / "link"):
        assert (tmp_path / "real" / workdir.LOCK).exists()
    # A run's folder is its own, with whatever its user put beside the results.
    (tmp_path / "real" / "notes.txt").touch()
    with workdir.locked(tmp_path / "link"):
        pass


def test_missing_kfp_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['kfp'] = None\n"
        "from podium_pipelines.arguments import require\n"
        "from podium.errors import UserError\n"
        "try: require('podium_pipelines.run')\n"
        "except UserError as error: print(error)"
    )
    assert in_fresh_python(code) == "kfp is not installed; write: pip install 'podium[kfp]'"


def test_a_module_of_ours_that_is_missing_is_our_fault() -> None:
    with pytest.raises(ModuleNotFoundError):
        require("podium_pipelines.nothing")


def test_the_run_folder_tells_configs_of_one_name_apart() -> None:
    assert cli.default_out(Path("examples/courteous/rlhf.yaml")) == Path("runs/courteous-rlhf")
