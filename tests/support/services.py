"""Commands on fakes of the services: a running fake, the config that points to it, a kubeconfig for its cluster."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from click.testing import Result
from typer.testing import CliRunner

from podium_pipelines import cli
from support.json_server import JsonServer


def call(*arguments: str) -> Result:
    """Run a command of `podium` that this package adds."""
    app = typer.Typer()
    cli.register(app)
    return CliRunner().invoke(app, list(arguments))


@dataclasses.dataclass(frozen=True)
class Service:
    """A running fake, the config that points to it, and the commands on it."""

    fake: Any
    server: JsonServer
    config: Path

    def submit(self, *options: str, preflight: bool = False) -> Result:
        """Submit the config."""
        skipping = () if preflight else ("--skip-preflight",)
        return call("submit", str(self.config), *skipping, *options)

    def on(self, verb: str, run: str, *options: str) -> Result:
        """Call a verb on a run."""
        return self.call(verb, run, *options)

    def call(self, verb: str, *arguments: str) -> Result:
        """Call a verb with the config."""
        return call(verb, *arguments, "--config", str(self.config))

    def set(self, target: str, **values: Any) -> None:
        """Change the section of a target in the config; None takes a key out."""
        config = yaml.safe_load(self.config.read_text())
        section = config["platform"][target]
        section.update(values)
        config["platform"][target] = {key: value for key, value in section.items() if value is not None}
        self.config.write_text(yaml.safe_dump(config))


def run_in(service: Service, state: str, *nodes: list[dict[str, Any]], stages: tuple[str, ...] = ()) -> None:
    """Let a run be in a state, with the stages that its pipeline has."""
    service.fake.states = (state,)
    tasks = {"root": {"dag": {"tasks": {stage: {} for stage in stages}}}}
    run = {"run_id": "run-0", "state": state, "looks": 0, "pipeline_spec": {"pipeline_spec": tasks}}
    service.fake.runs["run-0"] = run
    service.fake.nodes = [node for group in nodes for node in group]


def write_config(folder: Path, **platform: Any) -> Path:
    """Write a config whose files are in a bucket."""
    config = folder / "rlhf.yaml"
    data = {"preferences": "gs://submitted/a.jsonl", "prompts": "gs://submitted/b.jsonl"}
    model = {"name_or_path": "gs://submitted/m"}
    config.write_text(yaml.safe_dump({"model": model, "data": data, "platform": platform}))
    return config


def use_kubeconfig(path: Path, monkeypatch: pytest.MonkeyPatch, address: str | None, **user: Any) -> None:
    """Write a kubeconfig for a cluster, or none, and let the client find it."""
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(path))
    if address is not None:
        kubeconfig = {
            "clusters": [{"name": "c", "cluster": {"server": address}}],
            "users": [{"name": "u", "user": user}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        }
        path.write_text(yaml.safe_dump(kubeconfig))
