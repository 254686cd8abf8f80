"""Compare an exported folder with the model it came from, by transformers, an implementation that is not ours."""

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from podium.models.bundle import Model
from podium.models.hub import find_folder
from podium.models.peft import ADAPTER_CONFIG
from podium.models.transformer import forward, logits
from podium.models.weights.config_json import read_json

# Nats per token: the bound that MaxText's checker of converted checkpoints uses. It leaves room for bfloat16.
MAX_KL = 0.015


@dataclass(frozen=True)
class Agreement:
    """How near two models' next-token distributions are over one text: the worst logit, the mean KL, equal choices."""

    max_difference: float
    kl: float
    same_choice: float
    tokens: int

    @property
    def holds(self) -> bool:
        return bool(np.isfinite(self.max_difference)) and self.kl <= MAX_KL


def missing_package(adapter: bool) -> str | None:
    """Name a package that the comparison needs and that is not installed."""
    needed = ("torch", "peft") if adapter else ("torch",)
    return next((name for name in needed if importlib.util.find_spec(name) is None), None)


def our_logits(model: Model, ids: Sequence[int]) -> np.ndarray:
    """Logits [time, vocab] of one text, adapter included."""
    row = jnp.asarray([list(ids)], jnp.int32)

    def run(params: Any, adapter: Any) -> jax.Array:
        hidden = forward(model.config, params, row, jnp.ones(row.shape, bool), adapter=adapter, lora=model.lora)
        return logits(model.config, params, hidden)[0].astype(jnp.float32)

    return np.asarray(jax.jit(run)(model.params, model.adapter))


def their_logits(folder: Path, ids: Sequence[int]) -> np.ndarray:
    """Logits [time, vocab] as transformers computes them in float32, through PEFT for an adapter."""
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    # Its bars would stand between the stage's own lines.
    logging.disable_progress_bar()
    adapter = folder / ADAPTER_CONFIG
    base = find_folder(str(read_json(adapter)["base_model_name_or_path"]), None) if adapter.is_file() else folder
    model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    if adapter.is_file():
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, folder)
    with torch.no_grad():
        found: np.ndarray = model.eval()(torch.tensor([list(ids)])).logits[0].numpy()
    return found


def agreement(ours: np.ndarray, theirs: np.ndarray) -> Agreement:
    """Compare logits [time, vocab]."""
    ours, theirs = ours.astype(np.float64), theirs.astype(np.float64)
    p, q = (x - np.logaddexp.reduce(x, axis=-1, keepdims=True) for x in (ours, theirs))
    return Agreement(
        max_difference=float(np.abs(ours - theirs).max()),
        kl=float((np.exp(p) * (p - q)).sum(-1).mean()),
        same_choice=float((ours.argmax(-1) == theirs.argmax(-1)).mean()),
        tokens=len(ours),
    )
