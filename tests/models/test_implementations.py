"""Whole networks on the TPU's operations, its kernel interpreted, beside the same networks on the references.

Seen to fail: with windows that do not alternate.
"""

import logging
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from podium.generation.decode import respond
from podium.generation.sampling import Sampling
from podium.models import family, transformer
from podium.models.packing import Example, Size, for_rows, pack
from podium.models.text import Text
from podium.ops import platform
from podium.ops.tpu import attention as tpu
from podium.parallel.mesh import make_mesh
from support import tiny

# Layers 0 and 2 see four tokens, the others all: alternating, and too many to be told apart by more than a scan.
WINDOWS = replace(tiny.CONFIG, layers=4, sliding_window=4, sliding_layers=(True, False, True, False))


@pytest.fixture
def interpreted(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Run the kernel anywhere; returns the visibilities it was called with."""
    calls: list[object] = []
    kernel = tpu.attention

    def spied(query, memory, visible, **options):
        calls.append(visible)
        return kernel(query, memory, visible, interpret=True, **options)

    monkeypatch.setattr(tpu, "attention", spied)
    platform.notice.cache_clear()
    return calls


def text(batch: int = 4, seed: int = 0) -> Text:
    prompts = tiny.prompts(batch, seed=seed)
    rng = np.random.default_rng(seed)
    mask = np.arange(6)[None] < rng.integers(1, 7, batch)[:, None]
    return Text(prompts.ids, prompts.mask, jnp.asarray(rng.integers(2, 96, (batch, 6)), jnp.int32), jnp.asarray(mask))


def loss(config, lora, params, adapter, rows: Text) -> jax.Array:
    states = family.response_states(config, params, rows, adapter=adapter, lora=lora)
    logits = family.logits(config, params, states)
    chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), rows.response_ids[:, :, None], axis=-1)[..., 0]
    return jnp.sum(jnp.where(rows.response_mask, chosen, 0.0))


def compare(config, *, devices: bool = False) -> None:
    """Loss and gradients by both implementations."""
    params = tiny.params(config=config)
    adapter = family.init_adapter(config, tiny.LORA, jax.random.key(5))
    adapter = jax.tree.map(lambda leaf: leaf + 0.1, adapter)
    outs = []
    for implementation in ("reference", "tpu"):
        value = jax.jit(
            jax.value_and_grad(partial(loss, replace(config, implementation=implementation), tiny.LORA), argnums=(0, 1))
        )
        if devices:
            with jax.set_mesh(make_mesh(data=2, fsdp=2, tensor=2)):
                outs.append(jax.device_get(value(params, adapter, text())))
        else:
            outs.append(jax.device_get(value(params, adapter, text())))
    for x, y in zip(*map(jax.tree.leaves, outs), strict=True):
        np.testing.assert_allclose(x, y, rtol=2e-4, atol=2e-4 * max(1.0, np.abs(y).max()))


def test_layers_whose_windows_alternate_run_two_kernels(interpreted) -> None:
    compare(WINDOWS)
    assert {visible.window for visible in interpreted} == {4, None}


def test_devices_run_the_kernel_on_their_own_rows_and_heads(interpreted) -> None:
    compare(WINDOWS, devices=True)
    assert interpreted


def test_an_encoder_decoder_reads_its_prompt_by_the_kernel_and_says_where_it_does_not(interpreted, caplog) -> None:
    """T5 adds a bias where tokens of one text look at each other; once is enough to say so."""
    with caplog.at_level(logging.WARNING, logger="podium.ops.platform"):
        compare(tiny.T5)
    assert interpreted and not any(visible.causal for visible in interpreted)
    assert [record.getMessage() for record in caplog.records] == [
        "tpu: the plain attention is used: splash attention adds no bias to scores"
    ]


def test_rows_of_several_responses_are_packed_for_the_kernel(interpreted) -> None:
    """Each response behind its own prompt where the kernel knows segments alone, with the states of a shared one."""
    examples = [[Example([5, 6, 7], [[8, 9], [10, 11, 12]]), Example([20], [[21]])]]
    params, states = tiny.params(), {}
    for implementation, width in (("reference", 12), ("tpu", 16)):
        config = replace(tiny.CONFIG, implementation=implementation, share_prompts=implementation == "reference")
        packed, ends = pack(config, examples, Size(width, 0), tiny.PAD)
        out = jax.jit(partial(transformer.packed_states, config))(params, packed)
        states[implementation] = out[0, np.concatenate(ends[0])]
    assert interpreted
    np.testing.assert_allclose(states["tpu"], states["reference"], rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("config", tiny.CONFIGS.values(), ids=tiny.CONFIGS)
def test_answers_do_not_depend_on_the_implementation(interpreted, config) -> None:
    """Greedy, through the cache in its own layout, prefilled by the kernel."""

    prompts, params, ids = tiny.prompts(3), tiny.params(config=config), []
    for implementation in ("reference", "cpu", "tpu"):
        chosen = replace(config, implementation=implementation)
        answer = partial(respond, max_new_tokens=6, sampling=Sampling(0.0), eos_ids=(1,), pad_id=0, unroll=False)
        keys = jax.random.split(jax.random.key(0), 3)
        ids.append(jax.jit(partial(answer, chosen))(params, prompts.ids, prompts.mask, keys).ids.tolist())
    assert ids[0] == ids[1] == ids[2]


@pytest.mark.parametrize(
    "prompt, response, shared", [(0, 300, False), (200, 200, True), (1000, 1000, False), (3000, 30, True)]
)
def test_a_prompt_is_repeated_where_its_tokens_cost_less_than_the_scores_of_a_shared_one(prompt, response, shared):
    """Two answers, Llama 2 7B. With P = R the row is 3 P, and 9 P^2 scores cost as much as P tokens at P = 438."""
    config = replace(tiny.CONFIG, embed=4096, heads=32, kv_heads=32, head_dim=128, mlp=11008)
    examples = [Example([1] * prompt, [[1] * response] * 2)]
    assert for_rows(replace(config, implementation="tpu"), examples).share_prompts is shared
    assert for_rows(config, examples).share_prompts
    assert for_rows(replace(tiny.T5, implementation="tpu"), examples) == replace(tiny.T5, implementation="tpu")
