"""Identities of the network that no other implementation is needed for: padding, adapters, layouts, devices."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from podium.models import LoraSpec, TransformerConfig, family, transformer
from podium.models.family import abstract_params, logits, parameter_axes
from podium.models.heads import apply_head, init_head, last_token
from podium.models.lora import merge_adapter
from podium.models.rope import rope_tables, rotate
from podium.models.text import Trunk
from podium.models.transformer import positions_from_mask
from podium.parallel.mesh import make_mesh
from podium.parallel.sharding import tree_shardings
from support import tiny

forward = jax.jit(transformer.forward, static_argnums=0, static_argnames="lora")
prefill = jax.jit(transformer.prefill, static_argnums=0, static_argnames=("lora", "room", "trunk_layers"))
decode_step = jax.jit(transformer.decode_step, static_argnums=0, static_argnames="lora")

WIDTH = 12
UNTIED = tiny.CONFIG.replace(tie_embeddings=False, attention_bias=True, layers=3)


def adapter_of(config: TransformerConfig, lora: LoraSpec) -> Any:
    rng = np.random.default_rng(3)
    shapes = abstract_params(config, lora)[1]
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0, 0.2, leaf.shape), jnp.float32), shapes)


def batch(config: TransformerConfig, rows: int = 4) -> tuple[jax.Array, jax.Array]:
    rng = np.random.default_rng(4)
    ids = jnp.asarray(rng.integers(2, config.vocab_size, (rows, WIDTH)), jnp.int32)
    return ids, jnp.arange(WIDTH)[None, :] >= jnp.arange(rows)[:, None]


@pytest.fixture(scope="module")
def run() -> Any:
    params = tiny.params()
    step = jax.jit(lambda ids, mask: logits(tiny.CONFIG, params, transformer.forward(tiny.CONFIG, params, ids, mask)))
    return lambda ids, mask: np.asarray(step(jnp.asarray(ids, jnp.int32), jnp.asarray(mask)))


@given(
    text=st.lists(st.integers(2, 95), min_size=1, max_size=WIDTH),
    left=st.integers(0, WIDTH),
    rubbish=st.lists(st.integers(0, 95), min_size=WIDTH, max_size=WIDTH),
)
def test_padding_changes_nothing_wherever_it_stands_and_whatever_it_holds(
    run: Any, text: list[int], left: int, rubbish: list[int]
) -> None:
    left = min(left, WIDTH - len(text))
    mask = np.zeros((2, WIDTH), bool)
    ids = np.asarray([rubbish, [0] * WIDTH])
    mask[0, left : left + len(text)] = mask[1, : len(text)] = True
    ids[mask] = text * 2
    found = run(ids, mask)
    np.testing.assert_allclose(found[0][mask[0]], found[1][mask[1]], rtol=0, atol=5e-5)
    assert np.isfinite(found).all(), "padding must not make NaN, which a sum would spread"


def test_a_token_sees_nothing_that_comes_after_it(run: Any) -> None:
    ids, mask = batch(tiny.CONFIG)
    changed = ids.at[:, 8:].set(5)
    # At real tokens: what padding makes of a text is read by nobody.
    before, after = (np.asarray(mask) & part for part in (np.arange(WIDTH) < 8, np.arange(WIDTH) >= 8))
    np.testing.assert_array_equal(run(ids, mask)[before], run(changed, mask)[before])
    assert np.abs(run(ids, mask)[after] - run(changed, mask)[after]).max() > 0.1


def test_positions_count_real_tokens() -> None:
    mask = jnp.asarray([[0, 0, 1, 1, 1], [1, 1, 1, 0, 0], [0, 1, 0, 1, 0]], bool)
    assert positions_from_mask(mask).tolist() == [[0, 0, 0, 1, 2], [0, 1, 2, 2, 2], [0, 0, 0, 1, 1]]


@given(shift=st.integers(0, 80), seed=st.integers(0, 5))
@settings(max_examples=10)
def test_rotated_products_depend_on_distance_alone(shift: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    query, key = (jnp.asarray(rng.normal(size=(1, 1, 1, 8)), jnp.float32) for _ in range(2))

    def product(at_query: int, at_key: int) -> float:
        turned = [
            rotate(x, *rope_tables(tiny.CONFIG, jnp.asarray([[place]])))
            for x, place in ((query, at_query), (key, at_key))
        ]
        return float((turned[0] * turned[1]).sum())

    assert product(7 + shift, 3 + shift) == pytest.approx(product(7, 3), abs=1e-4)


@pytest.mark.parametrize("lora", [LoraSpec(3, 5.0), LoraSpec(2, 8.0, ("v_proj", "o_proj", "down_proj"), layers=2)])
def test_an_adapter_gives_what_its_merged_weights_give(lora: LoraSpec) -> None:
    params, adapter = tiny.params(config=UNTIED), adapter_of(UNTIED, lora)
    ids, mask = batch(UNTIED)
    adapted = forward(UNTIED, params, ids, mask, adapter=adapter, lora=lora)
    merged = forward(UNTIED, merge_adapter(params, adapter, lora), ids, mask)
    assert np.abs(adapted - forward(UNTIED, params, ids, mask)).max() > 0.1, "the adapter has no effect"
    np.testing.assert_allclose(adapted, merged, rtol=0, atol=1e-4)


@pytest.mark.parametrize("lora", [None, LoraSpec(3, 5.0), LoraSpec(2, 8.0, layers=1)])
def test_single_layers_and_caches_give_what_the_stack_gives(lora: LoraSpec | None) -> None:
    params = tiny.params(config=UNTIED)
    adapter = adapter_of(UNTIED, lora) if lora else None
    ids, mask = batch(UNTIED)
    whole = forward(UNTIED, params, ids, mask, adapter=adapter, lora=lora)
    layers = family.unstacked(UNTIED, params)
    apart = family.unstacked(UNTIED, adapter) if adapter else None
    for weights, extra in ((params, adapter), (layers, apart)):
        options = {"adapter": extra, "lora": lora}
        np.testing.assert_allclose(forward(UNTIED, weights, ids, mask, **options), whole, rtol=0, atol=1e-4)
        hidden, cache, _ = prefill(UNTIED, weights, ids[:, :9], mask[:, :9], room=3, **options)
        np.testing.assert_allclose(hidden, whole[:, 8], rtol=0, atol=1e-4)
        for step in range(3):
            token = ids[:, 9 + step]
            hidden, cache, _ = decode_step(UNTIED, weights, token, cache, step=jnp.asarray(step), **options)
            np.testing.assert_allclose(hidden, whole[:, 9 + step], rtol=0, atol=1e-4)


def test_a_trunk_stands_in_for_a_networks_own() -> None:
    lora = LoraSpec(2, 8.0, layers=1)
    params, adapter = tiny.params(config=UNTIED), adapter_of(UNTIED, lora)
    ids, mask = batch(UNTIED)
    states = prefill(UNTIED, params, ids, mask, room=1, adapter=adapter, lora=lora, trunk_layers=2).trunk_states
    whole = forward(UNTIED, params, ids, mask, adapter=adapter, lora=lora)
    found = forward(UNTIED, params, ids, mask, adapter=adapter, lora=lora, trunk=Trunk(states, 2, "base"))
    np.testing.assert_allclose(found, whole, rtol=0, atol=1e-6)


def test_a_mesh_gives_what_one_device_gives() -> None:
    params = tiny.params(config=UNTIED)
    ids, mask = batch(UNTIED)
    alone = forward(UNTIED, params, ids, mask)
    mesh = make_mesh(data=2, fsdp=2, tensor=2)
    spread = jax.device_put(params, tree_shardings(mesh, parameter_axes(UNTIED)[0], params))
    with jax.set_mesh(mesh):
        found = forward(UNTIED, spread, ids, mask)
    np.testing.assert_allclose(found, alone, rtol=0, atol=1e-4)


def test_half_precision_computes_in_half_precision_and_stays_near() -> None:
    params = tiny.params()
    ids, mask = batch(tiny.CONFIG)
    found = forward(tiny.CONFIG.replace(dtype="bfloat16"), params, ids, mask)
    assert found.dtype == jnp.bfloat16
    # Values are near 1 and bfloat16 keeps 8 bits; sharp attention makes a few of them differ by much more.
    difference = found.astype(jnp.float32) - forward(tiny.CONFIG, params, ids, mask)
    assert 1e-4 < float(jnp.abs(difference).mean()) < 0.03


def test_heads_start_as_documented_and_are_read_at_the_last_real_token() -> None:
    head = init_head(tiny.CONFIG, jax.random.key(0))
    assert float(jnp.std(head["kernel"])) == pytest.approx(1 / np.sqrt(33), rel=0.4)
    assert float(head["bias"]) == 0
    assert not init_head(tiny.CONFIG, None)["kernel"].any()
    hidden = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 32)), jnp.bfloat16)
    values = apply_head(head, hidden)
    assert values.dtype == jnp.float32
    np.testing.assert_allclose(values, np.asarray(hidden, np.float32) @ np.asarray(head["kernel"]), atol=1e-5)
    mask = jnp.asarray([[True, True, False], [False, True, True]])
    np.testing.assert_array_equal(last_token(values, mask), jnp.stack([values[0, 1], values[1, 2]]))
