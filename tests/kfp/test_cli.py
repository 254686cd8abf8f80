"""The verbs of this package on the `podium` command."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer
import yaml
from typer.testing import CliRunner

from podium.errors import UserError
from podium_pipelines import cli
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
    wrote = f"Wrote {output}: the pipeline for vertex (prepare, reward, sample, ppo, evaluate, export)\n"
    assert (result.exit_code, result.stdout) == (0, wrote)
    assert os.listdir(tmp_path) == ["pipeline.yaml"]
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
