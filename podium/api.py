"""Podium from Python: models and records in, models out. What is wrong with them raises podium.errors.UserError.

    import podium

    model = podium.load("HuggingFaceTB/SmolLM2-135M-Instruct")
    reward = podium.train_reward_model(model, [{"prompt": "Hi", "chosen": "Hello!", "rejected": "What?"}, ...])
    tuned = podium.train_ppo(model, reward, ["Hi", "Good morning"], config={"max_steps": 20, "lora": {"r": 8}})
    print(podium.generate(tuned, ["Hi"], max_new_tokens=20, temperature=0.7, seed=0).texts)
    podium.export(tuned, "tuned")

Where a config is taken, it is a section of the file that `podium run` reads, as a mapping or as the section's class.
"""

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from jax.sharding import Mesh

from podium.config import DataConfig, PpoConfig, RewardConfig, load_config_data
from podium.data.fields import Refused
from podium.data.formats import read_preference
from podium.data.prompts import read_prompt
from podium.data.records import PreferenceRecord, PromptRecord
from podium.errors import UserError
from podium.models import Model
from podium.parallel.mesh import make_mesh
from podium.rlhf import ppo_training, reward_training, scoring
from podium.rlhf.text_scoring import FunctionReward
from podium.training.loop import fingerprint

Record = TypeVar("Record")
Section = TypeVar("Section", RewardConfig, PpoConfig)
# A text, which the user says, or a conversation of messages.
Prompt = str | Sequence[Mapping[str, str]]

DEFAULTS = DataConfig()


def train_reward_model(
    model: Model,
    preferences: Sequence[PreferenceRecord | Mapping[str, Any]],
    *,
    config: RewardConfig | Mapping[str, Any] | None = None,
    seed: int = 0,
    mesh: Mesh | None = None,
    max_length: int = DEFAULTS.max_length,
    folder: str | Path | None = None,
) -> Model:
    """Train a reward model that starts from `model`.

    Args:
        model: What it starts from, and whose answers it is normalised on.
        preferences: Records, or rows in any format of docs/data-formats.md, such as prompt, chosen, rejected.
        config: The section `reward`.
        seed: Of the head, the adapters and the order of the records; equal seeds give equal weights.
        mesh: Devices; None takes all of them.
        max_length: Longest prompt with a response, in tokens.
        folder: Where metrics and checkpoints go; called again, training goes on from them. None keeps neither.

    Raises:
        UserError: A row or a setting is wrong, a text is too long, or training breaks down.
    """
    settings = _section("reward", config, RewardConfig)
    records = [_record(row, "preferences", n, PreferenceRecord, read_preference) for n, row in enumerate(preferences)]
    mesh = make_mesh() if mesh is None else mesh
    with _folder(folder) as place:
        run = reward_training.RewardRun(
            config=settings,
            seed=seed,
            mesh=mesh,
            folder=place,
            checkpoints=str(place / "checkpoints"),
            fingerprint=_fingerprint(settings, seed, records, model),
            max_length=max_length,
        )
        return reward_training.train_reward(model, model, records, run)


def train_ppo(
    policy: Model,
    reward: Model | Callable[..., Sequence[float | None]],
    prompts: Sequence[PromptRecord | Mapping[str, Any] | Prompt],
    *,
    config: PpoConfig | Mapping[str, Any] | None = None,
    seed: int = 0,
    mesh: Mesh | None = None,
    folder: str | Path | None = None,
) -> Model:
    """Tune `policy` on prompts alone, rewarded by a model or by any function.

    Args:
        policy: The model to tune; it stays as it is.
        reward: What `train_reward_model` gave, or a function that is called with the keywords `prompts` and
            `completions`, a text each (where the prompt is a conversation, lists of messages), and with a list for each
            further column of the prompts; it returns a number per completion, None for one that it does not judge,
            which counts 0.
        prompts: Texts, conversations, rows with a column `prompt`, or records.
        config: The section `ppo`. With a function the critic starts from the policy.
        seed: Of sampling, adapters and the order of the prompts; equal seeds give equal weights.
        mesh: Devices; None takes all of them.
        folder: Where metrics, sampled answers and checkpoints go; called again, training goes on from them. None keeps
            none of these.

    Raises:
        UserError: A prompt or a setting is wrong, a number is not finite, or the KL is above kl_stop.
    """
    settings = _section("ppo", config, PpoConfig)
    rows = [row if isinstance(row, PromptRecord | Mapping) else {"prompt": row} for row in prompts]
    as_text = [isinstance(row, Mapping) and isinstance(row.get("prompt"), str) for row in rows]
    records = [_record(row, "prompts", n, PromptRecord, read_prompt) for n, row in enumerate(rows)]
    mesh = make_mesh() if mesh is None else mesh
    with _folder(folder) as place:
        run = ppo_training.PpoRun(
            config=settings,
            seed=seed,
            mesh=mesh,
            folder=place,
            checkpoints=str(place / "checkpoints"),
            fingerprint=_fingerprint(settings, seed, records, policy, reward),
            rollouts=place / "rollouts.jsonl",
        )
        judge = reward if isinstance(reward, Model) else FunctionReward(reward, as_text)
        return ppo_training.train_ppo(policy, judge, records, run)


def score(model: Model, prompts: Sequence[Prompt], responses: Sequence[str], *, batch_size: int = 16) -> np.ndarray:
    """Reward each response to its prompt, as PPO does: read with an end behind it; float32 [responses].

    Raises:
        UserError: The model is no reward model, or prompts and responses are not equally many.
    """
    if model.head is None:
        raise UserError("score: the model has no reward head; give what train_reward_model returned")
    if len(prompts) != len(responses):
        raise UserError(f"score: {len(prompts)} prompts for {len(responses)} responses; give one of each")
    turns = [[{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt for prompt in prompts]
    return scoring.score(model, turns, responses, batch_size=batch_size)


def _section(name: str, config: Section | Mapping[str, Any] | None, kind: type[Section]) -> Section:
    """Check a section as that of a file is checked."""
    if isinstance(config, kind):
        return config
    whole = {"model": {"name_or_path": "/"}, name: dict(config or {})}
    section = getattr(load_config_data(whole, source="config"), name)
    assert isinstance(section, kind)
    return section


def _record(row: Any, name: str, index: int, kind: type[Record], read: Callable[[Mapping[str, Any]], Record]) -> Record:
    if isinstance(row, kind):
        return row
    try:
        return read(row)
    except Refused as error:
        raise UserError(f"{name}[{index}]: {error}") from None


def _fingerprint(config: RewardConfig | PpoConfig, seed: int, records: Sequence[Any], *models: Any) -> str:
    settings = config.model_dump(exclude={"save_steps", "save_minutes"})
    read = [record.model_dump() for record in records]
    return fingerprint(settings, seed, read, [getattr(model, "base_digest", "function") for model in models])


@contextlib.contextmanager
def _folder(folder: str | Path | None) -> Iterator[Path]:
    """Give the folder, or one that is gone afterwards."""
    if folder is not None:
        yield Path(folder).expanduser()
        return
    with tempfile.TemporaryDirectory(prefix="podium-") as name:
        yield Path(name)
