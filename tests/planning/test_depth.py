"""Layers are scanned: a program for TPUs is as long with eighty of them as with eight, and takes no longer to compile.

Seen to fail: with layers that are unrolled.
"""

from typing import Any

import pytest

from podium.config import PodiumConfig
from podium.parallel.mesh import make_mesh
from podium.planning.programs import Job, build
from support import folders

LORA: dict[str, Any] = {"lora": {"r": 2}}
# What a stage trains, of a decoder and of an encoder-decoder.
CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "ppo, adapters": ("ppo", "llama", LORA),
    "ppo, all weights, two kinds of layers": ("ppo", "gemma2", {}),
    "ppo, encoder and decoder": ("ppo", "t5 1.1", {}),
    "reward": ("reward", "llama", {}),
    "sft": ("sft", "llama", {}),
}


def equations(jaxpr: Any) -> int:
    """Count the equations of a program and of the programs in it: what a compiler is given, unrolled loops as such."""
    total = 0
    for equation in jaxpr.eqns:
        values = equation.params.values()
        parts = [part for value in values for part in (value if isinstance(value, tuple) else (value,))]
        inner = [getattr(part, "jaxpr", part) for part in parts]
        copies = equation.params["unroll"] if equation.primitive.name == "scan" else 1
        total += 1 + copies * sum(equations(part) for part in inner if hasattr(part, "eqns"))
    return total


def length(stage: str, family: str, changed: dict[str, Any], layers: int) -> int:
    raw = folders.FAMILIES[family]
    raw = raw | {key: layers for key in ("num_hidden_layers", "num_layers", "num_decoder_layers") if key in raw}
    rows = {"global_batch_size": 8, "per_device_batch_size": 2}
    config = {
        "model": {"name_or_path": "m"},
        "data": {"max_prompt_length": 32, "max_length": 64},
        "reward": LORA if changed else {},
        "ppo": {"max_new_tokens": 32},
        stage: changed | rows | {"max_new_tokens": 32} if stage == "ppo" else changed | rows | {"max_steps": 1},
        "platform": {"mesh": {"fsdp": 4, "tensor": 2}},
    }
    job = Job(stage, PodiumConfig.model_validate(config), {"policy": raw}, "tpu")
    return equations(build(job, make_mesh(fsdp=4, tensor=2)).step.trace().jaxpr)


@pytest.mark.parametrize("name", CASES)
def test_a_program_is_as_long_with_eighty_layers_as_with_eight(name: str) -> None:
    stage, family, changed = CASES[name]
    assert length(stage, family, changed, 80) == length(stage, family, changed, 8)
