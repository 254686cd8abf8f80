"""Export a model for other programs: a Hugging Face folder, or an adapter that the PEFT library loads."""

from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from podium.errors import UserError
from podium.models.bundle import Model, Tree
from podium.models.families.config_json import classifier_of, config_json
from podium.models.families.names import PEFT_PREFIX, SCORE
from podium.models.loading import WHOLE
from podium.models.peft import ADAPTER_CONFIG, ADAPTER_WEIGHTS, adapter_config
from podium.models.saving import generation_config, token_ids, write_json
from podium.models.weights.json_file import read_json
from podium.models.weights.layout import Leaf, adapter_leaves, leaves, tree_get
from podium.models.weights.writing import MAX_SHARD_BYTES, Tensor, tree_tensors, write_checkpoint, write_safetensors
from podium.parallel import placement
from podium.storage.staging import staged

# What an earlier export may have left in the folder.
_STALE = ("model*.safetensors", "model.safetensors.index.json", "adapter_*", "config.json", "generation_config.json")


def export(
    model: Model,
    folder: str | Path,
    *,
    format: Literal["merged", "adapter"] = "merged",
    dtype: str = "float32",
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> Path:
    """Write a folder that transformers (merged) or PEFT (adapter) loads and that gives the same logits.

    With it go tokenizer, chat template and generation_config.json. A reward model becomes a sequence classifier with
    one label: its score is gain * raw without the constant, which a head without a bias cannot hold and which changes
    no preference; config.json of the merged form keeps it as `reward_bias`.
    Raises UserError for what cannot be exported.
    """
    folder = Path(folder)
    if model.role == "critic":
        raise UserError("export: a critic has no use outside of training; name a policy or a reward model")
    if model.role == "reward" and model.head is None:
        raise UserError("export: this reward model has no head; train it first")
    if model.role == "reward":
        classifier_of(model.config)
    with staged(folder, replaces=_STALE) as temporary:
        if format == "adapter":
            _write_adapter(model, temporary, dtype)
        elif format == "merged":
            _write_merged(model, temporary, dtype, max_shard_bytes)
        else:
            raise UserError(f"export.format: {format!r} is not known; write merged or adapter")
        model.tokenizer.save(temporary)
        _name_pad(model, temporary)
    return folder


def _write_merged(model: Model, folder: Path, dtype: str, max_shard_bytes: int) -> None:
    tensors = [
        Tensor(leaf.name(layer), leaf.file_shape, partial(_merged, model, leaf, layer))
        for leaf in leaves(model.config)
        for layer in range(max(leaf.layers, 1))
        if not (_scores(model) and leaf.path[0] == "lm_head")
    ]
    if _scores(model):
        tensors.append(_score(model, SCORE))
    write_checkpoint(folder, tensors, dtype, max_shard_bytes)
    config = config_json(model.config, tokens=token_ids(model), head=_scores(model), dtype=dtype)
    write_json(folder / "config.json", config | _constant(model))
    if not _scores(model):
        write_json(folder / "generation_config.json", generation_config(model))


def _merged(model: Model, leaf: Leaf, layer: int) -> np.ndarray:
    """One layer of one leaf with its adapter folded in, W + (alpha / r) A B in float32, in the file's order."""
    array = tree_get(model.params, leaf.path)
    values = placement.fetch(array[layer] if leaf.layers else array)
    lora = model.lora
    if lora and leaf.layers and leaf.path[-1] == "kernel" and lora.rank(leaf.path[-2]):
        module: Tree = tree_get(model.adapter, leaf.path[:-1])
        index = layer - (leaf.layers - module["lora_a"].shape[0])
        if index >= 0:
            low, high = (placement.fetch(module[name][index]) for name in ("lora_a", "lora_b"))
            values = values + np.float32(lora.scale) * np.tensordot(low, high, axes=1)
    return leaf.to_file(values)


def _write_adapter(model: Model, folder: Path, dtype: str) -> None:
    if model.lora is None:
        raise UserError("export.format: this model has no adapter, it was trained in full; write merged")
    if WHOLE in model.metadata:
        # PEFT would wrap modules of the other parts that have the same names.
        raise UserError(
            f"export.format: the adapter is that of a part of a {model.metadata[WHOLE]} model, and would be loaded on "
            "top of the whole; write merged"
        )
    tensors = tree_tensors(model.adapter, adapter_leaves(model.config, model.lora))
    if _scores(model):
        tensors.append(_score(model, PEFT_PREFIX + SCORE))
    write_safetensors(folder / ADAPTER_WEIGHTS, tensors, dtype)
    options = adapter_config(model.lora, model.config, model.base, head=_scores(model))
    write_json(folder / ADAPTER_CONFIG, options)
    if not _scores(model):
        write_json(folder / "generation_config.json", generation_config(model))


def _scores(model: Model) -> bool:
    return model.role == "reward"


def _score(model: Model, name: str) -> Tensor:
    """The head as a matrix of one row, with the gain folded in."""
    assert model.head is not None
    kernel = np.asarray(placement.fetch(model.head["kernel"]), np.float32)[None, :] * np.float32(model.gain)
    return Tensor(name, kernel.shape, lambda: kernel)


def _constant(model: Model) -> dict[str, Any]:
    if not _scores(model) or model.head is None:
        return {}
    return {"reward_bias": float(model.gain) * float(model.head["bias"]) + float(model.bias)}


def _name_pad(model: Model, folder: Path) -> None:
    """Write the padding token that is no end into tokenizer_config.json: classifiers find a text's end by it."""
    path = folder / "tokenizer_config.json"
    written = read_json(path)
    written["pad_token"] = model.tokenizer.hf.convert_ids_to_tokens(model.tokenizer.pad_id)
    write_json(path, written)
