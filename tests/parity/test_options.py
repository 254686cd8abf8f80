"""Every option of the network against transformers, on random weights; float32, none is off by 1e-5."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from podium.models import Model, load
from podium.models.transformer import decode_step, forward, logits, prefill
from support.folders import write_tokenizer

BASE: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "tie_word_embeddings": False,
    "bos_token_id": 256,
    "eos_token_id": 257,
    "pad_token_id": 258,
}


def rope(kind: str, **options: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 10000.0, **options}}


OPTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "grouped queries": ("llama", {}),
    "one key head": ("llama", {"num_key_value_heads": 1}),
    "a key head per query head": ("llama", {"num_key_value_heads": 4}),
    "tied": ("llama", {"tie_word_embeddings": True}),
    "attention bias": ("llama", {"attention_bias": True}),
    "mlp bias": ("llama", {"mlp_bias": True}),
    "wide heads": ("llama", {"head_dim": 24}),
    "large epsilon": ("llama", {"rms_norm_eps": 0.1}),
    "theta": ("llama", {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}}),
    "linear": ("llama", rope("linear", factor=3.0)),
    "dynamic, short": ("llama", rope("dynamic", factor=3.0)),
    "dynamic, long": ("llama", {"max_position_embeddings": 16, **rope("dynamic", factor=3.0)}),
    "yarn": ("llama", rope("yarn", factor=4.0, original_max_position_embeddings=1024)),
    "yarn, all options": (
        "llama",
        rope(
            "yarn",
            factor=4.0,
            original_max_position_embeddings=1024,
            beta_fast=8.0,
            beta_slow=2.0,
            mscale=0.7,
            mscale_all_dim=1.3,
            truncate=False,
        ),
    ),
    "yarn, given factor": (
        "llama",
        rope("yarn", factor=4.0, original_max_position_embeddings=1024, attention_factor=1.7),
    ),
    "llama3": (
        "llama",
        rope("llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=32),
    ),
    "mistral": ("mistral", {"sliding_window": None}),
    "qwen2": ("qwen2", {}),
    "qwen2, tied": ("qwen2", {"tie_word_embeddings": True}),
}


@pytest.fixture(params=OPTIONS)
def pair(request: pytest.FixtureRequest, hf_model: Callable, tmp_path: Path) -> tuple[Any, Model]:
    """Return the same model twice: transformers', and ours as loaded from its folder."""
    family, options = OPTIONS[request.param]
    return both(hf_model, tmp_path, family, options)


def both(hf_model: Callable, folder: Path, family: str, options: dict[str, Any]) -> tuple[Any, Model]:
    from transformers import AutoConfig

    theirs = hf_model(AutoConfig.for_model(family, **BASE | options), folder)
    write_tokenizer(folder)
    return theirs, load(folder)


def our_logits(model: Model) -> Callable[[Any, Any], np.ndarray]:
    run = jax.jit(lambda params, ids, mask: logits(model.config, params, forward(model.config, params, ids, mask)))
    return lambda ids, mask: np.asarray(run(model.params, jnp.asarray(ids, jnp.int32), jnp.asarray(mask, bool)))


def test_gives_the_logits_of_transformers(pair: tuple[Any, Model], torch: Any) -> None:
    theirs, ours = pair
    run = our_logits(ours)
    ids = np.random.default_rng(1).integers(0, 256, (1, 24))
    with torch.no_grad():
        expected = theirs(torch.tensor(ids)).logits.numpy()
    assert np.abs(expected).max() > 1, "logits near zero would hide an error"
    np.testing.assert_allclose(run(ids, np.ones_like(ids)), expected, rtol=0, atol=2e-5)

    # The same text after 7 places of padding, and before them.
    pad = np.full((1, 7), 258)
    left = run(np.concatenate([pad, ids[:, :17]], axis=1), np.arange(24)[None, :] >= 7)[:, 7:]
    right = run(np.concatenate([ids[:, :17], pad], axis=1), np.arange(24)[None, :] < 17)[:, :17]
    np.testing.assert_allclose(left, right, rtol=0, atol=1e-5)
    if ours.config.rope_scaling and ours.config.rope_scaling.kind == "dynamic":
        return  # past max_position, transformers leaves cached keys as they were written: see rope.py

    # The likeliest continuation, token by token, in a buffer whose free places are masked.
    theirs.generation_config.eos_token_id = None
    told = theirs.generate(torch.tensor(ids[:, :12]), max_new_tokens=12, do_sample=False)
    buffer = np.concatenate([ids[:, :12], np.full((1, 12), 258)], axis=1)
    for place in range(12, 24):
        buffer[0, place] = run(buffer, np.arange(24)[None, :] < place)[0, place - 1].argmax()
    assert buffer[0].tolist() == told[0].tolist()


@pytest.mark.parametrize("option", ["attention bias", "dynamic, short", "yarn", "llama3", "qwen2, tied"])
def test_decoding_with_a_cache_gives_what_the_whole_text_gives(option: str, hf_model: Callable, tmp_path: Path) -> None:
    family, options = OPTIONS[option]
    _, model = both(hf_model, tmp_path, family, options)
    ids = jnp.asarray(np.random.default_rng(2).integers(0, 256, (2, 16)), jnp.int32)
    starts = jnp.asarray([0, 3])  # the second row is padded on the left
    mask = jnp.arange(16)[None, :] >= starts[:, None]
    whole = our_logits(model)(ids, mask)

    hidden, caches, _ = prefill(model.config, model.params, ids[:, :8], mask[:, :8], slots=16)
    found = [np.asarray(logits(model.config, model.params, hidden[:, -1]))]
    step = jax.jit(decode_step, static_argnums=0)
    for place in range(8, 15):
        filled = mask & (jnp.arange(16) <= place)[None, :]
        at = {"slot": jnp.asarray(place), "filled": filled, "positions": place - starts}
        hidden, caches, _ = step(model.config, model.params, ids[:, place], caches, **at)
        found.append(np.asarray(logits(model.config, model.params, hidden)))
    np.testing.assert_allclose(np.stack(found, axis=1), whole[:, 7:15], rtol=0, atol=1e-5)
