"""Compare an exported folder with the model it came from, by transformers, an implementation that is not ours."""

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from podium.models import family
from podium.models.bundle import Model
from podium.models.config import EncoderDecoderConfig
from podium.models.families.config_json import auto_class, parse_config
from podium.models.hub import find_folder
from podium.models.peft import ADAPTER_CONFIG
from podium.models.text import Text
from podium.models.weights.json_file import read_json

# Nats per token: the bound that MaxText's checker of converted checkpoints uses. It leaves room for bfloat16.
MAX_KL = 0.015


@dataclass(frozen=True)
class Agreement:
    """How near two models' next-token distributions are over a response: worst logit, mean KL, equal choices."""

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


def our_logits(model: Model, prompt: Sequence[int], response: Sequence[int]) -> np.ndarray:
    """Logits [response, vocab] that predict each token of a response, adapter included."""
    rows = [jnp.asarray([list(ids)], jnp.int32) for ids in (prompt, response)]
    text = Text(rows[0], jnp.ones(rows[0].shape, bool), rows[1], jnp.ones(rows[1].shape, bool))

    def run(params: Any, adapter: Any) -> jax.Array:
        states = family.response_states(model.config, params, text, adapter=adapter, lora=model.lora)
        return family.logits(model.config, params, states)[0].astype(jnp.float32)

    return np.asarray(jax.jit(run)(model.params, model.adapter))


def their_logits(folder: Path, prompt: Sequence[int], response: Sequence[int]) -> np.ndarray:
    """Logits [response, vocab] as transformers computes them in float32, through PEFT for an adapter."""
    import torch
    import transformers
    from transformers.utils import logging

    # Its bars would stand between the stage's own lines.
    logging.disable_progress_bar()
    adapter = folder / ADAPTER_CONFIG
    base = find_folder(str(read_json(adapter)["base_model_name_or_path"]), None) if adapter.is_file() else folder
    config = parse_config(read_json(base / "config.json"), str(base / "config.json"))
    model: Any = getattr(transformers, auto_class(config)).from_pretrained(base, dtype=torch.float32)
    if adapter.is_file():
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, folder)
    model.eval()
    prompt, response = list(prompt), list(response)
    with torch.no_grad():
        if isinstance(config, EncoderDecoderConfig):
            given = torch.tensor([[config.start_id, *response[:-1]]])
            logits = model(input_ids=torch.tensor([prompt]), decoder_input_ids=given).logits[0]
        else:
            logits = model(torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1]
    result: np.ndarray = logits.numpy()
    return result


def agreement(ours: np.ndarray, theirs: np.ndarray) -> Agreement:
    """Compare logits [response, vocab]."""
    ours, theirs = ours.astype(np.float64), theirs.astype(np.float64)
    p, q = (x - np.logaddexp.reduce(x, axis=-1, keepdims=True) for x in (ours, theirs))
    return Agreement(
        max_difference=float(np.abs(ours - theirs).max()),
        kl=float((np.exp(p) * (p - q)).sum(-1).mean()),
        same_choice=float((ours.argmax(-1) == theirs.argmax(-1)).mean()),
        tokens=len(ours),
    )
