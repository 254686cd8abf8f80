"""The model that a run starts from: config.model, or what sft made of it where a stage is given that."""

import dataclasses
from pathlib import Path
from typing import Any

from jax.sharding import Mesh

from podium.config import PodiumConfig, stage_config
from podium.errors import UserError
from podium.models import Model
from podium.models import load as load_silently
from podium.models.loading import MANIFEST
from podium.models.peft import ADAPTER_CONFIG
from podium.models.weights.json_file import read_json
from podium.stages.batch import with_batch
from podium.stages.io import StageIO
from podium.stages.manifest import MODEL, REWARD_MODEL, task_key
from podium.storage import remote
from podium.training.progress import Waiting

# In a model's metadata: what sft made it of. It stays with what is trained on that model.
FINE_TUNED_FROM = "fine_tuned_from"


def load(place: str | Path, **options: Any) -> Model:
    """Load a model as `podium.models.load` does, and say that it goes on where it takes long."""
    with Waiting(f"loading {place}"):
        return load_silently(place, **options)


def base_model(config: PodiumConfig, io: StageIO, mesh: Mesh) -> Model:
    """Load the input `model` where it is given, else config.model. Raises UserError for a model with an adapter."""
    dtype = config.model.dtype
    if "model" not in io.inputs:
        return load(config.model.name_or_path, dtype=dtype, mesh=mesh, revision=config.model.revision)
    place = io.inputs["model"]
    if (io.input("model") / ADAPTER_CONFIG).is_file():
        raise UserError(f"input model: {place} is an adapter; name what podium sft or a merged podium export wrote")
    model = load(io.input("model"), dtype=dtype, mesh=mesh)
    # What is trained on this model names it: by its URI, which outlives the copy on this machine.
    return dataclasses.replace(model, base=place) if remote.is_remote(place) else model


def reward_base(config: PodiumConfig, policy: Model, mesh: Mesh) -> Model:
    """Load what the reward model starts from: the policy, its encoder alone, or a model of its own."""
    own, encoder_only = config.reward.model, config.reward.encoder_only
    if own is None and not encoder_only:
        return policy
    name, revision = (policy.base, config.model.revision) if own is None else (own.name_or_path, own.revision)
    dtype = config.model.dtype if own is None else own.dtype
    return load(name, role="reward", dtype=dtype, mesh=mesh, revision=revision, encoder_only=encoder_only)


def base_name(config: PodiumConfig, io: StageIO) -> str:
    """Return what a reader calls that model, whichever folder it lies in."""
    name = config.model.name_or_path
    return f"{name}, fine-tuned" if "model" in io.inputs else name


def base_folder(config: PodiumConfig, io: StageIO, policy: Path, name: str = "model") -> str | Path | None:
    """Return where the base of a policy's adapter is now: an input says so, or else the config where it was moved.

    None: where it was when the adapter was trained. `load` refuses a base with other contents.
    """
    if name in io.inputs:
        return io.input(name)
    manifest = policy / MANIFEST
    trained_on = read_json(manifest).get("base") if manifest.is_file() else None
    here = Path(config.model.name_or_path)
    moved = isinstance(trained_on, str) and Path(trained_on).is_absolute() and not Path(trained_on).exists()
    return here if moved and here.is_dir() else None


def work_key(stage: str, config: PodiumConfig, io: StageIO, policy: Model, base: Model | None = None) -> str:
    """Return what checkpoints of a stage must agree on: config, inputs and models, wherever those lie."""
    models = {MODEL: str(policy.base_digest)} | ({REWARD_MODEL: str(base.base_digest)} if base is not None else {})
    return task_key(stage, with_batch(stage, stage_config(config, stage)), io.input_digests() | models)
