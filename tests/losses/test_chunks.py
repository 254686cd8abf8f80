"""Logits in parts: the same numbers and gradients, and no array of all of them.

Seen to fail: with parts joined in the other order; without the checkpoint (all parts' logits are kept).
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

from podium.losses import chunks
from podium.losses.logprobs import entropy, token_logprobs

ROWS, WIDTH, EMBED, VOCAB = 3, 11, 5, 13


def statistics(table: jax.Array, states: jax.Array, ids: jax.Array) -> tuple[jax.Array, jax.Array]:
    def part(states: jax.Array, ids: jax.Array) -> tuple[jax.Array, jax.Array]:
        logits = jnp.einsum("bte,ve->btv", states, table)
        return token_logprobs(logits, ids, temperature=0.7), entropy(logits, temperature=0.7)

    logprobs, entropies = chunks.over_columns(part, states, ids, vocab=VOCAB)
    return logprobs, entropies


def loss(table: jax.Array, states: jax.Array, ids: jax.Array) -> jax.Array:
    logprobs, entropies = statistics(table, states, ids)
    weight = jnp.cos(jnp.arange(ROWS * WIDTH, dtype=jnp.float32)).reshape(ROWS, WIDTH)
    return jnp.sum(weight * logprobs) + 0.3 * jnp.sum(weight * entropies)


@pytest.fixture
def arrays() -> tuple[jax.Array, jax.Array, jax.Array]:
    rng = np.random.default_rng(0)
    table, states = (rng.normal(size=shape).astype(np.float32) for shape in ((VOCAB, EMBED), (ROWS, WIDTH, EMBED)))
    return jnp.asarray(table), jnp.asarray(states), jnp.asarray(rng.integers(0, VOCAB, (ROWS, WIDTH)), jnp.int32)


@pytest.mark.parametrize("columns", [1, 4, 10])
def test_parts_give_what_the_whole_gives(columns: int, arrays: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = statistics(*arrays), jax.grad(loss, argnums=(0, 1))(*arrays)
    monkeypatch.setattr(chunks, "LOGITS_PER_ROW", columns * VOCAB)
    parts = statistics(*arrays), jax.grad(loss, argnums=(0, 1))(*arrays)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5), parts, whole)
    assert parts[0][0].shape == (ROWS, WIDTH)


def largest(jaxpr: Any) -> int:
    """Return the size of the largest array that a program names, its inner programs included."""
    sizes = [var.aval.size for equation in jaxpr.eqns for var in equation.outvars if hasattr(var.aval, "size")]
    inner = [inner for equation in jaxpr.eqns for inner in jaxprs_in_params(equation.params)]
    return max([0, *sizes, *map(largest, inner)])


def test_no_array_holds_all_logits_neither_forward_nor_backward(arrays: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def program() -> Any:
        # Another function each time: JAX remembers what it traced.
        return jax.make_jaxpr(jax.grad(lambda *given: loss(*given), argnums=(0, 1)))(*arrays).jaxpr

    assert largest(program()) >= ROWS * WIDTH * VOCAB
    monkeypatch.setattr(chunks, "LOGITS_PER_ROW", 3 * VOCAB)
    assert largest(program()) < ROWS * WIDTH * VOCAB / 2
