"""Compile the pipeline of a config to KFP's intermediate representation."""

import os
import tempfile
from collections.abc import Mapping
from itertools import dropwhile
from pathlib import Path

from kfp import compiler

from podium.config import PodiumConfig
from podium_pipelines.parameters import data_files
from podium_pipelines.rlhf import Target, rlhf_pipeline
from podium_pipelines.versions import Versions, known_here


def compile_text(
    config: PodiumConfig, target: Target, versions: Versions | None = None, env: Mapping[str, str] | None = None
) -> str:
    """Return the IR YAML of a config for one target.

    versions: of what tasks read beside artifacts; None takes what is known without a network. env: environment
    variables of the tasks that leave verdict and report with the run. Kubeflow's text may hold a second document with
    the platform spec; Vertex's is always one, as its client demands.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "pipeline.yaml")
        if versions is None:
            # A local run has no cache of KFP's: stages look at their files themselves.
            versions = Versions() if target == "local" else known_here(config)
        compiler.Compiler().compile(rlhf_pipeline(config, target, versions, env or {}), str(path))
        return _without_header(path.read_text(encoding="utf-8"))


def _without_header(text: str) -> str:
    """Drop KFP's comment on top: it repeats the defaults in an order that differs from process to process."""
    lines = text.splitlines(keepends=True)
    return "".join(dropwhile(lambda line: line.startswith("#"), lines))


def local_paths(config: PodiumConfig) -> list[str]:
    """Return what the config names on this machine: a task elsewhere cannot read it."""
    models = [model.name_or_path for model in (config.model, config.reward.model) if model is not None]
    return [*data_files(config), *(model for model in dict.fromkeys(models) if os.path.exists(model))]
