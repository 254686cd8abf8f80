"""Measure on whatever JAX runs on: attention beside its reference, what rematerialisation costs, adapters in decoding.

accelerator.py [--small] [--json FILE]; --small is for a laptop. On one GPU or TPU it takes a few minutes.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from podium.parallel.runtime import configure

configure()

import jax  # noqa: E402 - the settings above are read when it starts
import jax.numpy as jnp  # noqa: E402
from shapes import LLAMA_32_1B  # noqa: E402

from podium.generation.decode import respond  # noqa: E402
from podium.generation.sampling import Sampling  # noqa: E402
from podium.models import family  # noqa: E402
from podium.models.config import TransformerConfig  # noqa: E402
from podium.models.lora import LoraSpec, merge_adapter  # noqa: E402
from podium.models.precision import in_compute_type  # noqa: E402
from podium.models.text import Text  # noqa: E402
from podium.ops.attention import attention  # noqa: E402
from podium.ops.loops import decode_unrolled  # noqa: E402
from podium.ops.types import KeyValues, Segments, Visibility  # noqa: E402

REPEATS = 5
LORA = LoraSpec(16, 32.0)


class Size(NamedTuple):
    """The shape of Llama 3.2 1B, or of something small; half of `time` is a prompt."""

    batch: int
    time: int
    config: TransformerConfig


LLAMA = LLAMA_32_1B.replace(dtype="bfloat16")
SMALL = LLAMA.replace(vocab_size=512, embed=64, layers=6, heads=4, kv_heads=2, head_dim=16, mlp=128, dtype="float32")
SIZES = {False: Size(8, 1024, LLAMA), True: Size(4, 64, SMALL)}


def seconds(function: Callable[..., Any], *arguments: Any) -> float:
    """Median seconds of a compiled call, after one that compiles."""
    jax.block_until_ready(function(*arguments))
    times = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        jax.block_until_ready(function(*arguments))
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def attention_times(size: Size) -> dict[str, Any]:
    """Forward and backward, causal, padded on the left: this platform's variant and the reference."""
    config, dtype = size.config, jnp.dtype(size.config.dtype)
    keys = jax.random.split(jax.random.key(0), 3)
    shape = (size.batch, size.time, config.heads, config.head_dim)
    narrow = (size.batch, config.kv_heads, size.time, config.head_dim)
    query = jax.random.normal(keys[0], shape, dtype)
    memory = KeyValues(*(jax.random.normal(key, narrow, dtype) for key in keys[1:]))
    segment = (jnp.arange(size.time)[None] >= size.time // 8).astype(jnp.int32).repeat(size.batch, 0)
    mask = jnp.tril(jnp.ones((size.time, size.time), bool))[None] & (segment[:, None] > 0)
    visible = Visibility(mask, Segments(segment, segment, packed=False), causal=True)
    figures: dict[str, Any] = {}
    outs = {}
    for implementation in ("auto", "reference"):

        def loss(query: jax.Array, memory: KeyValues, implementation: Any = implementation) -> jax.Array:
            out = attention(query, memory, visible, scale=config.score_scale, implementation=implementation)
            return jnp.sum(jnp.square(out.astype(jnp.float32)) * segment[:, :, None, None])

        both = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))
        figures[f"{implementation}_seconds"] = seconds(both, query, memory)
        outs[implementation] = both(query, memory)
    gaps = jax.tree.map(
        lambda x, y: jnp.max(jnp.abs((x - y).astype(jnp.float32))) / jnp.max(jnp.abs(y.astype(jnp.float32))),
        outs["auto"],
        outs["reference"],
    )
    return figures | {"largest_relative_difference": max(float(gap) for gap in jax.tree.leaves(gaps))}


def remat_times(size: Size) -> dict[str, Any]:
    """Gradient of an adapter by policy: seconds, and bytes of temporaries."""
    figures = {}
    params, adapter, text = weights(size)
    for kept in ("none", "dots", "full"):
        config = replace(size.config, remat=kept)

        def loss(adapter: Any, params: Any, config: TransformerConfig = config) -> jax.Array:
            states = family.response_states(config, params, text, adapter=adapter, lora=LORA)
            return jnp.mean(states.astype(jnp.float32) ** 3)

        compiled = jax.jit(jax.grad(loss)).lower(adapter, params).compile()
        memory = compiled.memory_analysis()
        figures[kept] = {
            "seconds": seconds(compiled, adapter, params),
            "temporary_bytes": None if memory is None else memory.temp_size_in_bytes,
        }
    return figures


def decode_times(size: Size) -> dict[str, Any]:
    """Tokens per second of answers, with the adapter beside its base and merged into it, and seconds of a merge."""
    params, adapter, text = weights(size)
    config, tokens = size.config, size.time // 2
    answer = partial(
        respond,
        config,
        max_new_tokens=tokens,
        sampling=Sampling(1.0),
        eos_ids=(),
        pad_id=0,
        unroll=decode_unrolled(config.layers, config.implementation),
    )
    keys = jax.random.split(jax.random.key(0), size.batch)
    beside = jax.jit(partial(answer, lora=LORA))
    merge = jax.jit(lambda params, adapter: merge_adapter(params, adapter, LORA))
    plain = jax.jit(answer)
    prompt = text.prompt_ids, text.prompt_mask, keys
    count = size.batch * tokens
    return {
        "beside_tokens_per_second": count / seconds(lambda: beside(params, *prompt, adapter=adapter)),
        "merged_tokens_per_second": count / seconds(plain, merge(params, adapter), *prompt),
        "merge_seconds": seconds(merge, params, adapter),
    }


def weights(size: Size) -> tuple[Any, Any, Text]:
    """Random weights as a run stores them, an adapter that does something, and a batch without padding."""
    make = jax.jit(lambda key: family.init_params(size.config, key, LORA))
    params, adapter = make(jax.random.key(0))
    half = size.time // 2
    ids = jax.random.randint(jax.random.key(1), (size.batch, size.time), 1, size.config.vocab_size, jnp.int32)
    mask = jnp.ones((size.batch, half), bool)
    text = Text(ids[:, :half], mask, ids[:, half:], mask)
    frozen = in_compute_type(params, size.config.dtype)
    return frozen, in_compute_type(jax.tree.map(lambda x: x + 0.01, adapter), size.config.dtype), text


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="sizes of a test")
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args(arguments)
    size = SIZES[options.small]
    device = jax.devices()[0]
    figures: dict[str, Any] = {"device": device.device_kind, "jax": jax.__version__, "dtype": size.config.dtype}
    for name, measure in (("attention", attention_times), ("remat", remat_times), ("decode", decode_times)):
        figures[name] = measure(size)
        print(f"{name}: {json.dumps(figures[name])}", flush=True)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
