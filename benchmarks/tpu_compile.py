"""Compile one PPO step of a published shape for a TPU slice that is not there, and say what a chip would hold.

tpu_compile.py [--shape llama-2-7b-lora] [--topology v5e:4x4] [--layers N] [--remat full] [--implementation tpu] ...
"""

import argparse
import json
import math
import os
import re
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from podium.planning.requests import FOR_TPU

# Before the first import of jax.
os.environ |= FOR_TPU

import jax
from shapes import LLAMA_2_7B, LLAMA_32_1B

from podium.config import CriticConfig, LoraConfig, PpoConfig
from podium.config.platform import RolloutMeshConfig
from podium.models.config import TransformerConfig
from podium.models.lora import LoraSpec, lora_spec
from podium.parallel.rollout import with_rollout
from podium.planning.meshes import tpu_mesh
from podium.planning.topology import parse as parse_topology
from podium.rlhf.networks import Network
from podium.rlhf.program import abstract_ppo_step


class Shape(NamedTuple):
    """A network and how it is trained; batches are of all chips."""

    config: TransformerConfig
    lora: LoraConfig | None
    batch: int
    micro_batches: int


SHAPES = {
    "llama-2-7b-lora": Shape(LLAMA_2_7B, LoraConfig(r=16), batch=64, micro_batches=2),
    "llama-3.2-1b": Shape(LLAMA_32_1B, None, batch=64, micro_batches=4),
}
# No size of the shapes above, whole or shared by four, is their sum: an array of time x time is known by its sizes.
PROMPT, RESPONSE = 384, 384


class Compiled(NamedTuple):
    """What came out, in bytes of one chip: peak, and what is there before and after."""

    seconds: float
    peak: int
    arguments: int
    temporary: int
    text: str
    chips: int


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=SHAPES, default="llama-2-7b-lora")
    parser.add_argument("--layers", type=int, help="in place of the shape's")
    parser.add_argument("--prompt", type=int, default=PROMPT, help=f"tokens of a prompt ({PROMPT})")
    parser.add_argument("--response", type=int, default=RESPONSE, help=f"tokens of a response ({RESPONSE})")
    parser.add_argument("--topology", default="v5e:4x4", help="chips, as v5e:4x4")
    parser.add_argument("--tensor", type=int, default=4, help="chips along the tensor axis (4); the rest is fsdp")
    parser.add_argument("--rollout-tensor", type=int, help="chips that share weights while the policy answers")
    parser.add_argument("--remat", choices=("none", "dots", "full"), default="full")
    parser.add_argument("--implementation", choices=("tpu", "reference"), default="tpu")
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--json", type=Path, help="file for the figures")
    return parser.parse_args(arguments)


def compile_step(options: argparse.Namespace) -> Compiled:
    """Compile a step: the reward model is an adapter on the policy's base, or a full model of its own."""
    shape = SHAPES[options.shape]
    layers = options.layers or shape.config.layers
    network = replace(shape.config, layers=layers, dtype=options.dtype, implementation=options.implementation)
    topology = parse_topology(options.topology)
    fsdp = topology.chips // options.tensor
    config = PpoConfig(
        max_new_tokens=options.response,
        global_batch_size=shape.batch,
        per_device_batch_size=shape.batch // fsdp // shape.micro_batches,
        num_ppo_epochs=4,
        lora=shape.lora,
        remat=options.remat,
        critic=CriticConfig(init="policy"),
        sample_rows=0,
    )
    lora: LoraSpec | None = lora_spec(shape.lora)
    reward = Network(network, lora, "policy") if lora else Network(network, None, "reward")
    wanted = None if options.rollout_tensor is None else RolloutMeshConfig(tensor=options.rollout_tensor)
    mesh, rollout = with_rollout(tpu_mesh(topology, (1, 1, fsdp, options.tensor)), wanted)
    made = abstract_ppo_step(
        network, reward, config, mesh, width=options.prompt, eos_ids=(2,), ending=(), rollout=rollout
    )
    assert made.spec.gradient_accumulation_steps == shape.micro_batches
    step = made.step
    began = time.monotonic()
    try:
        compiled = step.lower().compile()
    except jax.errors.JaxRuntimeError as error:
        # What is needed and what a chip has stands in its first lines.
        raise SystemExit("\n".join(str(error).splitlines()[:12])) from None
    memory = compiled.memory_analysis()
    peak = memory.argument_size_in_bytes + memory.temp_size_in_bytes + memory.output_size_in_bytes
    peak -= memory.alias_size_in_bytes
    return Compiled(
        time.monotonic() - began,
        peak,
        memory.argument_size_in_bytes,
        memory.temp_size_in_bytes,
        compiled.as_text(),
        mesh.size,
    )


def arrays_in(text: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Types and sizes of the arrays that a compiled program names, those of one chip."""
    for kind, sizes in set(re.findall(r"\b(f32|bf16)\[([\d,]+)\]", text)):
        yield kind, tuple(int(size) for size in sizes.split(","))


def too_large(options: argparse.Namespace, compiled: Compiled) -> list[str]:
    """Name float32 arrays of time x time, and arrays of batch x time x vocabulary that no chunk has."""
    shape = SHAPES[options.shape]
    length, vocab = options.prompt + options.response, shape.config.vocab_size // options.tensor
    # What a micro-batch's logits of a whole response would be on a chip: the tables of a vocabulary have the width of
    # the network beside it.
    embed, fsdp = shape.config.embed, compiled.chips // options.tensor
    logits = shape.batch // fsdp // shape.micro_batches * options.response * vocab
    named = []
    for kind, sizes in arrays_in(compiled.text):
        if kind == "f32" and sizes.count(length) >= 2:
            named.append(f"{kind}{list(sizes)}: time x time")
        table = {size for size in sizes if size not in (vocab, 1)} <= {embed, embed // fsdp}
        if vocab in sizes and not table and math.prod(sizes) >= logits:
            named.append(f"{kind}{list(sizes)}: batch x time x vocabulary")
    return sorted(named)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    compiled = compile_step(options)
    figures = {
        "shape": options.shape,
        "topology": options.topology,
        "remat": options.remat,
        "implementation": options.implementation,
        "dtype": options.dtype,
        "seconds": round(compiled.seconds, 1),
        "peak_bytes": compiled.peak,
        "argument_bytes": compiled.arguments,
        "temporary_bytes": compiled.temporary,
        "too_large": too_large(options, compiled),
    }
    print(json.dumps(figures, indent=2))
    if options.json:
        options.json.write_text(json.dumps(figures))
    return 1 if figures["too_large"] else 0


if __name__ == "__main__":
    sys.exit(main())
