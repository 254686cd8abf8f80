"""The kernels for TPUs and GPUs compute what the reference does, forward and backward.

Splash attention runs in Pallas' interpret mode. cuDNN cannot run here: XLA's implementation behind the same function
takes the same arguments, so that what is shown is what they are made of: lengths, moved rows, windows.

Seen to fail: with a window of one more; with rows that are not moved back.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from podium.ops.attention import reference
from podium.ops.gpu import attention as gpu
from podium.ops.tpu import attention as tpu
from podium.ops.types import KeyValues, Segments, Visibility

BATCH, TIME, HEADS, KV_HEADS = 2, 20, 4, 2
# Padding in front (as prompts have), behind (as responses have), on both sides, and nowhere.
LEFT_AND_RIGHT = np.array([[0] * 3 + [1] * 12 + [0] * 5, [1] * 20], np.int32)
PACKED = np.array([[1] * 6 + [2] * 9 + [3] * 3 + [0] * 2, [1] * 4 + [2] * 16], np.int32)


def draw(*shape: int, seed: int, dtype=jnp.float32) -> jax.Array:
    return jax.random.normal(jax.random.key(seed), shape, dtype)


def visibility(segment: np.ndarray, *, causal: bool, window: int | None, packed: bool = False) -> Visibility:
    """Tell what segments tell by a mask, written out."""
    place = np.arange(segment.shape[1])
    distance = place[:, None] - place[None, :]
    mask = (segment[:, :, None] == segment[:, None, :]) & (segment[:, None, :] > 0)
    mask &= (distance >= 0)[None] | (not causal)
    mask &= (np.abs(distance) < window)[None] if window else True
    ids = jnp.asarray(segment)
    return Visibility(jnp.asarray(mask), Segments(ids, ids, packed), causal, window)


def check(kernel, segment: np.ndarray, visible: Visibility, *, head_dim: int, softcap=None, dtype=jnp.float32) -> None:
    """Compare outputs and gradients at real tokens: padding gets anything finite."""
    query = draw(BATCH, TIME, HEADS, head_dim, seed=0, dtype=dtype)
    memory = KeyValues(*(draw(BATCH, KV_HEADS, TIME, head_dim, seed=seed, dtype=dtype) for seed in (1, 2)))
    weights = draw(BATCH, TIME, HEADS, head_dim, seed=3) * (segment > 0)[:, :, None, None].astype(np.float32)

    def total(attend, query, memory):
        return jnp.sum(attend(query, memory).astype(jnp.float32) * weights)

    def ours(query, memory):
        return kernel(query, memory, visible, scale=0.3, softcap=softcap)

    def plain(query, memory):
        return reference(query, memory, visible.mask, scale=0.3, softcap=softcap)

    outs = [jax.jit(attend)(query, memory) for attend in (ours, plain)]
    grads = [jax.jit(jax.grad(partial(total, attend), argnums=(0, 1)))(query, memory) for attend in (ours, plain)]
    assert all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves((outs[0], grads[0])))
    real = segment > 0
    bound = 3e-5 if dtype == jnp.float32 else 5e-2
    np.testing.assert_allclose(*(np.asarray(out, np.float32)[real] for out in outs), atol=bound, rtol=bound)
    for x, y in zip(*map(jax.tree.leaves, grads), strict=True):
        np.testing.assert_allclose(np.asarray(x, np.float32), np.asarray(y, np.float32), atol=10 * bound, rtol=bound)


@pytest.mark.parametrize(
    "segment, options, settings",
    [
        (LEFT_AND_RIGHT, {"causal": True, "window": None}, {"head_dim": 64}),
        (LEFT_AND_RIGHT, {"causal": True, "window": 5}, {"head_dim": 64, "softcap": 2.0}),
        (PACKED, {"causal": True, "window": None, "packed": True}, {"head_dim": 128}),
        (PACKED, {"causal": False, "window": None, "packed": True}, {"head_dim": 64}),
        (LEFT_AND_RIGHT, {"causal": True, "window": None}, {"head_dim": 64, "dtype": jnp.bfloat16}),
    ],
    ids=["padded", "window and cap", "packed", "both ways", "bfloat16"],
)
def test_splash_attention_is_the_reference(segment, options, settings) -> None:
    check(partial(tpu.attention, interpret=True), segment, visibility(segment, **options), **settings)


@pytest.mark.parametrize("causal, window", [(True, None), (True, 5), (False, None)])
def test_rows_by_their_lengths_are_the_reference(causal: bool, window: int | None) -> None:
    """Padding in front is moved behind, and the result back."""
    visible = visibility(LEFT_AND_RIGHT, causal=causal, window=window)
    check(partial(gpu.attention, implementation="xla"), LEFT_AND_RIGHT, visible, head_dim=16)


QUERY = jnp.zeros((BATCH, TIME, HEADS, 64), jnp.bfloat16)
PLAIN = visibility(LEFT_AND_RIGHT, causal=True, window=None)


@pytest.mark.parametrize(
    "kernel, query, visible, options, reason",
    [
        (tpu, QUERY, PLAIN, {}, None),
        (tpu, QUERY, PLAIN, {"bias": jnp.zeros((HEADS, TIME, TIME))}, "bias"),
        (tpu, QUERY, PLAIN._replace(segments=None), {}, "mask"),
        (gpu, QUERY, PLAIN, {}, None),
        (gpu, QUERY.astype(jnp.float32), PLAIN, {}, "float32"),
        (gpu, QUERY[..., :60], PLAIN, {}, "60"),
        (gpu, jnp.zeros((1, 1, 1, 192), jnp.bfloat16), PLAIN, {}, "192"),
        (gpu, QUERY, PLAIN, {"softcap": 50.0}, "soft cap"),
        (gpu, QUERY, PLAIN, {"bias": jnp.zeros((HEADS, TIME, TIME))}, "bias"),
        (gpu, QUERY, visibility(PACKED, causal=True, window=None, packed=True), {}, "one text a row"),
        (gpu, QUERY, PLAIN._replace(window=5, causal=False), {}, "left"),
    ],
)
def test_a_kernel_says_what_it_cannot_do(kernel, query, visible, options, reason) -> None:
    refusal = kernel.refuses(query, visible, **{"softcap": None, "bias": None} | options)
    assert refusal is None if reason is None else reason in refusal
