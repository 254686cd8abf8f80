"""Save a model as a Podium Model folder, from which `load` gives back the same bits."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from podium.models.bundle import Model
from podium.models.config import EncoderDecoderConfig
from podium.models.families.config_json import config_json
from podium.models.loading import FORMAT, HEAD_WEIGHTS, MANIFEST, WHOLE
from podium.models.peft import ADAPTER_CONFIG, ADAPTER_WEIGHTS, adapter_config
from podium.models.weights.layout import adapter_leaves, leaves
from podium.models.weights.writing import Tensor, tree_tensors, write_checkpoint, write_safetensors
from podium.parallel import placement
from podium.storage.staging import staged

_STALE = ("model*.safetensors", "model.safetensors.index.json", "adapter_*", HEAD_WEIGHTS, "config.json")


def save(model: Model, folder: str | Path) -> Path:
    """Write weights (the adapter alone where there is one), head, tokenizer and podium_model.json, which comes last.

    Other files of an existing folder stay. Raises UserError when the folder cannot be written.
    """
    folder = Path(folder)
    with staged(folder, last=MANIFEST, replaces=_STALE) as temporary:
        if model.lora is None:
            _write_full(model, temporary)
        else:
            _write_adapter(model, temporary)
        if model.head is not None:
            write_head(model.head, temporary)
        model.tokenizer.save(temporary)
        write_json(temporary / MANIFEST, _manifest(model))
    return folder


def _write_full(model: Model, folder: Path) -> None:
    write_checkpoint(folder, tree_tensors(model.params, leaves(model.config)))
    write_json(folder / "config.json", config_json(model.config, tokens=token_ids(model), head=False, dtype="float32"))
    write_json(folder / "generation_config.json", generation_config(model))


def _write_adapter(model: Model, folder: Path) -> None:
    assert model.lora is not None and model.adapter is not None
    if not model.base or not model.base_digest:
        raise ValueError("an adapter is saved without its base: give the model base and base_digest")
    tensors = tree_tensors(model.adapter, adapter_leaves(model.config, model.lora))
    write_safetensors(folder / ADAPTER_WEIGHTS, tensors)
    write_json(folder / ADAPTER_CONFIG, adapter_config(model.lora, model.config, model.base, head=False))


def write_head(head: dict[str, Any], folder: Path) -> None:
    """Write head.safetensors; the scalar bias as one element."""
    kernel, bias = placement.fetch((head["kernel"], head["bias"]))
    bias = np.asarray(bias)[None]
    tensors = [Tensor("kernel", kernel.shape, lambda: kernel), Tensor("bias", (1,), lambda: bias)]
    write_safetensors(folder / HEAD_WEIGHTS, tensors)


def _manifest(model: Model) -> dict[str, Any]:
    lora = model.lora
    return {
        "format": FORMAT,
        "role": model.role,
        "gain": float(model.gain),
        "bias": float(model.bias),
        "read_at": model.read_at,
        "lora": lora and vars(lora),
        "encoder_only": isinstance(model.config, EncoderDecoderConfig) and model.config.encoder_only,
        "base": model.base,
        "base_digest": model.base_digest,
        # Weights that are saved in full are no part of anything else any more.
        "metadata": {name: value for name, value in model.metadata.items() if lora or name != WHOLE},
    }


def token_ids(model: Model) -> dict[str, Any]:
    """Give the special token ids as transformers and servers read them: one end or a list, a pad that is no end.

    And the token that a decoder reads first, where it has a prompt of its own.
    """
    tokenizer = model.tokenizer
    ends = list(tokenizer.eos_ids)
    result: dict[str, Any] = {"bos_token_id": tokenizer.hf.bos_token_id}
    result["eos_token_id"] = ends[0] if len(ends) == 1 else ends
    # A pad beyond the embedding is ours alone: transformers would index the embedding with it.
    result["pad_token_id"] = tokenizer.pad_id if tokenizer.pad_id < model.config.vocab_size else None
    result["decoder_start_token_id"] = model.config.lead[0] if model.config.lead else None
    return {name: value for name, value in result.items() if value not in (None, [])}


def generation_config(model: Model) -> dict[str, Any]:
    """Keep the source's generation defaults; ends and pad are the tokenizer's."""
    kept = dict(model.metadata.get("generation_config") or {})
    kept.pop("transformers_version", None)
    return kept | token_ids(model)


def write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
