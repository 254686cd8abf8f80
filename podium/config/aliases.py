"""Names that TRL and its relatives use for our settings, and what each of them is called here.

Every translation is said in a notice, and the resolved configuration has the names of this project only.
"""

from collections.abc import Callable
from typing import Any

from podium.config.document import Document, Names, describe, dotted
from podium.config.model import ALL_PROJECTIONS
from podium.errors import UserError

_TRAINING = {
    "per_device_train_batch_size": "per_device_batch_size",
    "micro_batch_size": "per_device_batch_size",
    "lr": "learning_rate",
    "lr_scheduler": "lr_scheduler_type",
    "warmup_steps_fraction": "warmup_ratio",
    "max_norm": "max_grad_norm",
    "lora_r": "lora.r",
    "lora_rank": "lora.r",
    "lora.rank": "lora.r",
    "lora_alpha": "lora.alpha",
    "lora.lora_alpha": "lora.alpha",
    "lora_target_modules": "lora.target_modules",
    "lora_target": "lora.target_modules",
    "use_peft": "lora",
    "resume_from_checkpoint": "resume",
}
_SAMPLING = {
    "response_length": "max_new_tokens",
    "max_completion_length": "max_new_tokens",
    "max_response_length": "max_new_tokens",
}
_SECTIONS: dict[str, dict[str, str]] = {
    "model": {
        "model_name_or_path": "name_or_path",
        "base_model": "name_or_path",
        "model_name": "name_or_path",
        "path": "name_or_path",
        "model_revision": "revision",
        "revision_of_model": "revision",
        "torch_dtype": "dtype",
    },
    "data": {
        "sequence_len": "max_length",
        "cutoff_len": "max_length",
        "max_target_length": "max_length",
        "max_prefill_predict_length": "max_prompt_length",
    },
    "sft": _TRAINING | {"num_epochs": "num_train_epochs", "sample_packing": "packing"},
    "sample": _SAMPLING
    | {
        "n": "num_generations",
        "n_samples_per_prompt": "num_generations",
        "num_generations_per_prompt": "num_generations",
    },
    "reward": _TRAINING | {"num_epochs": "num_train_epochs"},
    "ppo": _TRAINING
    | _SAMPLING
    | {
        "cliprange": "clip_range",
        "clip_ratio": "clip_range",
        "eps_clip": "clip_range",
        "cliprange_value": "value_clip_range",
        "value_clip": "value_clip_range",
        "lam": "gae_lambda",
        "lambd": "gae_lambda",
        "kl_coeff": "kl_coef",
        "init_kl_coef": "kl_coef",
        "target_kl": "kl_target",
        "ppo_target": "kl_target",
        "horizon": "kl_horizon",
        "ppo_epochs": "num_ppo_epochs",
        "ppo_whiten_rewards": "whiten_rewards",
    },
}
RENAMED: dict[str, str] = {
    "model_name_or_path": "model.name_or_path",
    "base_model": "model.name_or_path",
    "model_revision": "model.revision",
    "eval": "evaluation",
} | {f"{section}.{old}": f"{section}.{new}" for section, names in _SECTIONS.items() for old, new in names.items()}


def _lora(value: Any) -> Any:
    """Read use_peft: true becomes adapters with their defaults."""
    if isinstance(value, bool):
        return {} if value else None
    return value


def _resume(value: Any) -> Any:
    """Read resume_from_checkpoint: true continues, false starts again."""
    if isinstance(value, bool):
        return "auto" if value else "never"
    return value


def _projections(value: Any) -> Any:
    """Read target modules as peft takes them: one name, several with commas, or all-linear."""
    if value in ("all-linear", "all"):
        return list(ALL_PROJECTIONS)
    return [part.strip() for part in value.split(",")] if isinstance(value, str) else value


_CONVERT: dict[str, Callable[[Any], Any]] = {
    "use_peft": _lora,
    "resume_from_checkpoint": _resume,
    "lora_target_modules": _projections,
    "lora_target": _projections,
    "resume": _resume,
    "target_modules": _projections,
}
# Our own names, whose values other tools write differently.
_OWN_NAMES: tuple[Names, ...] = tuple(
    (section, *keys) for section in ("sft", "reward", "ppo") for keys in (("resume",), ("lora", "target_modules"))
)


def rename(document: Document) -> list[str]:
    """Give every value its name here, in place; return the notices.

    Raises:
        UserError: A name and its translation are both given.
    """
    notices = []
    for old, new in RENAMED.items():
        source, target = tuple(old.split(".")), tuple(new.split("."))
        holder = _holder(document.data, source)
        if holder is None or source[-1] not in holder:
            continue
        place = document.place(source).where
        _put(document, source, target, convert(source[-1], holder.pop(source[-1])))
        notices.append(f"{place}: {old} is read as {new}")
    for keys in _OWN_NAMES:
        holder = _holder(document.data, keys)
        if holder is not None and keys[-1] in holder:
            holder[keys[-1]] = convert(keys[-1], holder[keys[-1]])
    return notices


def renamed(keys: Names) -> Names:
    """Return the name here of one dotted path."""
    new = RENAMED.get(dotted(keys))
    return tuple(new.split(".")) if new else keys


def convert(name: str, value: Any) -> Any:
    """Return the value in our form, for names whose values differ too."""
    return _CONVERT[name](value) if name in _CONVERT else value


def _holder(data: dict[str, Any], keys: Names) -> dict[str, Any] | None:
    """Return the mapping that would hold the last of `keys`."""
    node: Any = data
    for key in keys[:-1]:
        node = node.get(key) if isinstance(node, dict) else None
    return node if isinstance(node, dict) else None


def _put(document: Document, source: Names, target: Names, value: Any) -> None:
    """Put a value under its name here, unless something else is there already."""
    where = document.place(source).where
    node: dict[str, Any] = document.data
    for index, key in enumerate(target[:-1], 1):
        inner = node.get(key)
        if inner is None:
            inner = node[key] = {}
            document.places.setdefault(target[:index], document.place(source))
        if not isinstance(inner, dict):
            raise UserError(f"{where}: {dotted(source)}: {dotted(target[:index])} is {describe(inner)}; keep one")
        node = inner
    current = node.get(target[-1])
    if isinstance(current, dict) and value == {}:
        return
    if current is not None:
        raise UserError(f"{where}: {dotted(source)} and {dotted(target)} are the same setting; keep {dotted(target)}")
    node[target[-1]] = value
    document.move(source, target)
