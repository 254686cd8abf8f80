"""Parameter files of Google's managed RLHF pipeline, accepted as they are.

The names and defaults are those of `rlhf_pipeline` in google-cloud-pipeline-components 2.x.
"""

from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError

from podium.config.base import Float, Positive
from podium.config.document import Document, Names, describe
from podium.config.ppo import PpoConfig
from podium.config.stages import RewardConfig
from podium.errors import UserError


@dataclass(frozen=True)
class Parameter:
    """Where a parameter goes (nowhere, one or several places), what it is when left out, or why it goes nowhere."""

    targets: tuple[str, ...] = ()
    default: Any = None
    remark: str = ""


MANAGED: dict[str, Parameter] = {
    "large_model_reference": Parameter(("model.name_or_path",)),
    "preference_dataset": Parameter(("data.preferences",)),
    "prompt_dataset": Parameter(("data.prompts",)),
    "eval_dataset": Parameter(("data.eval_prompts",)),
    "prompt_sequence_length": Parameter(("data.max_prompt_length",), 512),
    "target_sequence_length": Parameter(("sample.max_new_tokens", "ppo.max_new_tokens"), 64),
    "reward_model_learning_rate_multiplier": Parameter(("reward.learning_rate",), 1.0),
    "reinforcement_learning_rate_multiplier": Parameter(("ppo.learning_rate",), 1.0),
    "reward_model_train_steps": Parameter(("reward.max_steps",), 1000),
    "reinforcement_learning_train_steps": Parameter(("ppo.max_steps",), 1000),
    "kl_coeff": Parameter(("ppo.kl_coef",), 0.1),
    "instruction": Parameter(("data.instruction",)),
    "project": Parameter(("platform.vertex.project",)),
    "location": Parameter(("platform.vertex.region",)),
    "tensorboard_resource_id": Parameter(remark="training stages write event files; tensorboard --logdir reads them"),
    "encryption_spec_key_name": Parameter(("platform.vertex.encryption_key",)),
    "model_display_name": Parameter(remark="name the exported folder with podium run --out"),
    "deploy_model": Parameter(remark="the run ends with a Hugging Face folder and deploys nothing"),
    "accelerator_type": Parameter(remark="name accelerators in platform.resources"),
}
_RESPONSE = "target_sequence_length"
_LENGTHS = ("prompt_sequence_length", _RESPONSE)
_WHOLE_NUMBERS = (*_LENGTHS, "reward_model_train_steps", "reinforcement_learning_train_steps")
_LEARNING_RATES = {
    "reward_model_learning_rate_multiplier": RewardConfig.model_fields["learning_rate"].default,
    "reinforcement_learning_rate_multiplier": PpoConfig.model_fields["learning_rate"].default,
}
_MODELS = {
    "t5-small": "google/flan-t5-small",
    "t5-large": "google/flan-t5-large",
    "t5-xl": "google/flan-t5-xl",
    "t5-xxl": "google/flan-t5-xxl",
    "llama-2-7b": "meta-llama/Llama-2-7b-hf",
    "llama-2-13b": "meta-llama/Llama-2-13b-hf",
    "llama-2-7b-chat": "meta-llama/Llama-2-7b-chat-hf",
    "llama-2-13b-chat": "meta-llama/Llama-2-13b-chat-hf",
}
_NUMBER: TypeAdapter[float] = TypeAdapter(Float)
_WHOLE_NUMBER: TypeAdapter[int] = TypeAdapter(Positive)
# Families that the managed pipeline named and whose weights Google never published.
_CLOSED = ("text-bison", "chat-bison", "text-unicorn", "bison", "otter", "elephant", "gecko", "unicorn")


def is_managed(data: dict[str, Any]) -> bool:
    """Tell whether a file is written for the managed pipeline: these names have no other meaning here."""
    return not data.keys().isdisjoint(("large_model_reference", "preference_dataset", "prompt_dataset"))


def apply_managed(document: Document) -> list[str]:
    """Move the parameters to their places here, in place; return the notices.

    What is left out has the managed pipeline's default, and what our own sections say goes before both.
    """
    notices, defaults = [], []
    lengths = []
    for name, parameter in MANAGED.items():
        given = name in document.data
        value = document.data.pop(name, parameter.default)
        if value is None or value == "":
            continue
        places = [path for path in parameter.targets if _is_free(document.data, path)]
        where = document.place((name,)).where
        if places or name in _LENGTHS:
            value = _convert(name, value, where)
        if name in _LENGTHS:
            lengths.append(value)
        for path in places:
            _set(document, path, value, (name,) if given else ())
        if given:
            notices.append(f"{where}: {_remark(name, places)}")
        elif places:
            defaults.append(f"{name} {value}")
    if len(lengths) == len(_LENGTHS) and _is_free(document.data, "data.max_length"):
        _set(document, "data.max_length", sum(lengths), (_RESPONSE,))
    if defaults:
        notices.append(f"{document.root.where}: the managed pipeline's defaults hold for {', '.join(defaults)}")
    notices.append(
        f"{document.root.where}: the managed pipeline's batch of 64 depends on the devices here; "
        "see reward.per_device_batch_size and ppo.per_device_batch_size"
    )
    return notices


def _remark(name: str, places: list[str]) -> str:
    """Say what became of a parameter."""
    parameter = MANAGED[name]
    if not parameter.targets:
        return f"{name} has no counterpart here: {parameter.remark}"
    if not places:
        return f"{name} is not used: {' and '.join(parameter.targets)} is set beside it"
    return f"{name} is read as {' and '.join(places)}"


def _convert(name: str, value: Any, where: str) -> Any:
    if name == "large_model_reference":
        return _model(str(value), where)
    try:
        if name in _LEARNING_RATES:
            return float(_NUMBER.validate_python(value)) * _LEARNING_RATES[name]
        # A pipeline that was run before hands its numbers on as 512.0.
        return _WHOLE_NUMBER.validate_python(value) if name in _WHOLE_NUMBERS else value
    except ValidationError:
        wanted = "a number" if name in _LEARNING_RATES else "a whole number more than 0"
        raise UserError(f"{where}: {name}: write {wanted}, not {describe(value)}") from None


def _model(reference: str, where: str) -> str:
    """Return the published weights of a model reference; anything unknown is a path or name of its own."""
    plain = reference.lower().replace("_", "-")
    if plain.partition("@")[0].startswith(_CLOSED) and "/" not in reference:
        raise UserError(
            f"{where}: large_model_reference: the weights of {reference} were never public; name an open model, "
            "such as meta-llama/Llama-3.1-8B-Instruct, google/gemma-2-9b-it or HuggingFaceTB/SmolLM2-135M-Instruct"
        )
    return _MODELS.get(plain, reference)


def _is_free(data: dict[str, Any], path: str) -> bool:
    """Tell whether nothing stands at a dotted path, nor anything but a section on the way to it."""
    node: Any = data
    for key in path.split("."):
        if not isinstance(node, dict):
            return False
        if key not in node:
            return True
        node = node[key]
    return False


def _set(document: Document, path: str, value: Any, source: Names) -> None:
    """Put a value under a dotted path, with the place of the parameter it comes from."""
    keys = tuple(path.split("."))
    node = document.data
    for key in keys[:-1]:
        node = node.setdefault(key, {})
    node[keys[-1]] = value
    document.places[keys] = document.place(source)
