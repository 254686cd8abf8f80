"""Compile one PPO step for ever more chips at fixed work a chip, or with ever more layers, and print what grows.

growth.py [--topology v5p:2x2x2 --topology v5p:2x4x4 ...] [--layers 4 --layers 8 ...] [--tensor 1] [--rollout-tensor 4]
"""

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from podium.planning.requests import FOR_TPU

# Before the first import of jax.
os.environ |= FOR_TPU

import jax
from tpu_compile import arrays_in

from podium.config import CriticConfig, LoraConfig, PpoConfig
from podium.config.platform import RolloutMeshConfig
from podium.models import family
from podium.models.config import TransformerConfig
from podium.models.lora import lora_spec
from podium.parallel.rollout import with_rollout
from podium.planning import hlo
from podium.planning.collectives import collectives_in
from podium.planning.meshes import tpu_mesh
from podium.planning.operations import count
from podium.planning.topology import parse as parse_topology
from podium.rlhf.networks import Network
from podium.rlhf.program import AbstractPpo, abstract_ppo_step

# Narrow enough that no weight, and no array of a chip's own rows, has LARGE entries a layer; wide enough that 512 chips
# can share the width. No other size is the number of layers.
NETWORK = TransformerConfig(
    vocab_size=8192,
    embed=2048,
    layers=3,
    heads=16,
    kv_heads=16,
    head_dim=128,
    mlp=5632,
    max_position=4096,
    rope_theta=1e4,
    norm_eps=1e-5,
    tie_embeddings=False,
    dtype="bfloat16",
    implementation="tpu",
)
ROWS, PROMPT, RESPONSE = 8, 128, 128
# Entries of the rows of 8 chips x time x width.
LARGE = 8 * ROWS * (PROMPT + RESPONSE) * NETWORK.embed


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--topology", action="append", help="chips, as v5p:2x2x2; again for more")
    parser.add_argument("--layers", action="append", type=int, help=f"depth ({NETWORK.layers}); again for more")
    parser.add_argument("--tensor", type=int, default=1, help="chips along the tensor axis (1); the rest is fsdp")
    parser.add_argument("--rollout-tensor", type=int, default=4, help="chips that share weights in the answers (4)")
    parser.add_argument("--epochs", type=int, default=1, help="passes over the answers (1)")
    parser.add_argument("--critic", choices=("separate", "shared"), default="separate", help="as ppo.critic.kind")
    parser.add_argument("--lora", action="store_true", help="train adapters")
    parser.add_argument("--json", type=Path, help="file for the figures")
    return parser.parse_args(arguments)


def make_step(options: argparse.Namespace, topology: str, layers: int) -> AbstractPpo:
    """Make the step: ROWS prompts a chip in one micro-batch, all weights or adapters."""
    chips = parse_topology(topology)
    wanted = RolloutMeshConfig(tensor=options.rollout_tensor)
    sizes = (1, 1, chips.chips // options.tensor, options.tensor)
    mesh, rollout = with_rollout(tpu_mesh(chips, sizes), wanted)
    lora = LoraConfig(r=16) if options.lora else None
    config = PpoConfig(
        max_new_tokens=RESPONSE,
        global_batch_size=ROWS * chips.chips,
        per_device_batch_size=ROWS * options.tensor,
        num_ppo_epochs=options.epochs,
        lora=lora,
        remat="full",
        critic=CriticConfig(kind=options.critic, init="policy"),
        sample_rows=0,
    )
    network = NETWORK.replace(layers=layers)
    reward = Network(network, lora_spec(lora), "policy") if lora else Network(network, None, "reward")
    return abstract_ppo_step(network, reward, config, mesh, width=PROMPT, eos_ids=(2,), ending=(), rollout=rollout)


def figures(options: argparse.Namespace, topology: str, layers: int) -> dict[str, Any]:
    """Compile a step and give what one chip computes, holds and sends, and what the compiler took."""
    made = make_step(options, topology, layers)
    mesh = made.step.mesh
    traced = made.step.trace()
    began, worked = time.monotonic(), time.process_time()
    with jax.set_mesh(mesh):
        compiled = traced.lower().compile()
    cpu, wall = time.process_time() - worked, time.monotonic() - began
    text, stats = compiled.as_text(), compiled.memory_analysis()
    module = hlo.parse(text)
    return {
        "topology": topology,
        "chips": mesh.size,
        "layers": layers,
        "products": sum(count(traced.jaxpr, decode_steps=RESPONSE - 1).values()) / mesh.size,
        "compiled_flops": compiled.cost_analysis()["flops"],
        "arguments": stats.argument_size_in_bytes,
        "temporaries": stats.temp_size_in_bytes,
        "sent": sent(text, dict(mesh.shape)),
        "too_large": sorted(too_large(text, made, layers)),
        "instructions": sum(map(len, module.computations.values())),
        "cpu_seconds": round(cpu, 1),
        "seconds": round(wall, 1),
    }


def sent(text: str, shape: Mapping[str, int]) -> dict[str, float]:
    """Bytes that a chip would send in exchanges of an axis of any length, by kind and axis.

    Of what n chips exchange over a ring each sends (n - 1) / n: that share is taken out, because it alone grows with
    n, to 1.
    """
    found: dict[str, float] = {}
    for one in (one for ones in collectives_in(text, shape, decode_steps=RESPONSE - 1).values() for one in ones):
        size = math.prod(shape[axis] for axis in one.axis.split("+"))
        ring = size / (size - 1) if one.kind not in ("collective-permute", "send") else 1.0
        name = f"{one.kind} {one.axis}"
        found[name] = found.get(name, 0.0) + one.sent * ring
    return found


def too_large(text: str, made: AbstractPpo, layers: int) -> Iterator[str]:
    """Name arrays of one chip that are a whole stacked kernel, or hold rows of 8 chips x time x width or vocabulary."""
    base, _ = family.abstract_params(made.roles.policy.config)
    kernels = {tuple(sorted(leaf.shape)) for leaf in jax.tree.leaves(base["blocks"]) if len(leaf.shape) > 2}
    for kind, sizes in arrays_in(text):
        cut = tuple(sorted(size for size in sizes if size > 1))
        if cut in kernels:
            yield f"{kind}{list(sizes)}: all {layers} layers of a weight"
        elif math.prod(size for size in sizes if size != layers) >= LARGE:
            yield f"{kind}{list(sizes)}: more than a chip's own rows"


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    found = []
    for topology in options.topology or ["v5p:2x2x2", "v5p:2x4x4"]:
        for layers in options.layers or [NETWORK.layers]:
            found.append(figures(options, topology, layers))
            print(json.dumps(found[-1], indent=2), flush=True)
    if options.json:
        options.json.write_text(json.dumps(found))
    return 1 if any(one["too_large"] for one in found) else 0


if __name__ == "__main__":
    sys.exit(main())
