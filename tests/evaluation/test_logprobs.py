"""Log-probabilities of answers against a slow, unpadded, one-token-at-a-time twin."""

import functools
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from podium.evaluation.logprobs import answer_logprobs
from podium.models import family, transformer
from podium.models.bundle import Model
from podium.models.config import TransformerConfig
from podium.models.lora import LoraSpec

CONFIG = TransformerConfig(
    vocab_size=40,
    embed=16,
    layers=2,
    heads=4,
    kv_heads=2,
    head_dim=4,
    mlp=24,
    max_position=128,
    rope_theta=1e4,
    norm_eps=1e-5,
    tie_embeddings=True,
)
PROMPTS = [[5, 6, 7], [9], list(range(1, 36)), [8, 8]]
ANSWERS = [[1, 2, 3, 4], [30, 31], [7], []]


@pytest.fixture(scope="module")
def model() -> Model:
    lora = LoraSpec(r=2, alpha=4)
    params, adapter = jax.jit(lambda key: family.init_params(CONFIG, key, lora))(jax.random.key(1))
    # Weights far from their small start, or every token is about equally likely and nothing is told apart.
    scaled = jax.tree.map(lambda leaf: 20 * leaf if leaf.ndim > 2 else leaf, params)
    noisy = jax.tree.map(lambda leaf: leaf + 0.3 * jax.random.normal(jax.random.key(2), leaf.shape), adapter)
    return Model(config=CONFIG, params=scaled, adapter=noisy, lora=lora, tokenizer=SimpleNamespace(pad_id=0))


@functools.cache
def logits_of(row: tuple[int, ...], adapted: bool, model: Model) -> np.ndarray:
    """Logits of one row alone, without padding."""
    ids = np.array([row], np.int32)
    adapter, lora = (model.adapter, model.lora) if adapted else (None, None)

    @jax.jit
    def run() -> jax.Array:
        hidden = transformer.forward(CONFIG, model.params, ids, np.ones_like(ids, bool), adapter=adapter, lora=lora)
        return family.logits(CONFIG, model.params, hidden)

    return np.asarray(run(), np.float64)[0]


def slow(model: Model, prompt: list[int], answer: list[int], temperature: float = 1.0, adapted: bool = True) -> float:
    total = 0.0
    for place, token in enumerate(answer, start=len(prompt)):
        logits = logits_of((*prompt, *answer), adapted, model)[place - 1] / temperature
        total += logits[token] - np.log(np.exp(logits - logits.max()).sum()) - logits.max()
    return total


@pytest.mark.parametrize("batch_size", [1, 3])
def test_sums_equal_the_slow_twin_at_each_temperature(model: Model, batch_size: int) -> None:
    expected = [[slow(model, p, a, t) for p, a in zip(PROMPTS, ANSWERS, strict=True)] for t in (1.0, 0.7)]
    found = answer_logprobs(model, PROMPTS, ANSWERS, temperatures=(1.0, 0.7), batch_size=batch_size)
    assert found == pytest.approx(np.array(expected), abs=1e-4)
    assert found[0, 3] == found[1, 3] == 0.0
    assert np.abs(found[0] - found[1])[:3].min() > 1e-3


def test_the_adapter_matters_and_its_absence_is_the_reference(model: Model) -> None:
    reference = model.replace(adapter=None, lora=None)
    expected = [slow(model, p, a, adapted=False) for p, a in zip(PROMPTS, ANSWERS, strict=True)]
    (plain,) = answer_logprobs(reference, PROMPTS, ANSWERS, temperatures=(1.0,), batch_size=4)
    (adapted,) = answer_logprobs(model, PROMPTS, ANSWERS, temperatures=(1.0,), batch_size=4)
    assert plain == pytest.approx(expected, abs=1e-4)
    assert np.abs(plain - adapted)[:3].min() > 1e-3


def test_progress_counts_answers_and_unequal_lists_are_refused(model: Model) -> None:
    seen: list[tuple[int, int]] = []

    def progress(done: int, total: int) -> None:
        seen.append((done, total))

    answer_logprobs(model, PROMPTS, ANSWERS, temperatures=(1.0,), batch_size=4, progress=progress)
    answer_logprobs(model, PROMPTS[:2], ANSWERS[:2], temperatures=(1.0,), batch_size=4, progress=progress)
    assert seen == [(4, 4), (2, 2)]
    with pytest.raises(ValueError, match="4 prompts for 3 answers"):
        answer_logprobs(model, PROMPTS, ANSWERS[:3], temperatures=(1.0,), batch_size=4)
