"""The programs of a plan are those of training; what is counted of them follows from sizes and from the trace."""

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest

from podium.config import PodiumConfig
from podium.errors import UserError
from podium.models.lora import lora_spec
from podium.models.packing import Size
from podium.planning import advice, measure, memory, meshes, sweep
from podium.planning.operations import count
from podium.planning.programs import Job, Planned, build
from podium.planning.roofline import time_step
from podium.planning.topology import parse
from podium.rlhf.networks import Network
from podium.rlhf.roles import make_roles, ppo_spec
from podium.rlhf.work import Texts, ppo_speed, products, supervised_speed, weights_of
from support import folders

# Long texts and a narrow vocabulary: what is rounded up shows less. Two layers, so that a scan has a length.
RAW = folders.CONFIG | {"hidden_size": 64, "intermediate_size": 128, "max_position_embeddings": 512}
BASE: dict[str, Any] = {
    "model": {"name_or_path": "m"},
    "data": {"max_prompt_length": 64, "max_length": 128},
    "reward": {"lora": {"r": 2}, "global_batch_size": 16, "per_device_batch_size": 1, "max_steps": 3},
    "sft": {"global_batch_size": 16, "per_device_batch_size": 1, "max_steps": 3},
    "ppo": {
        "lora": {"r": 2},
        "global_batch_size": 16,
        "per_device_batch_size": 1,
        "num_ppo_epochs": 3,
        "num_mini_batches": 2,
        "max_new_tokens": 64,
    },
    "platform": {"mesh": {}},
}


def job(stage: str, raw: dict[str, Any] = RAW, **changed: Any) -> Job:
    config = {name: value for name, value in BASE.items() if name != "sft" or stage == "sft"}
    config = {name: value | changed.get(name, {}) for name, value in config.items()} | {
        name: value for name, value in changed.items() if name not in BASE
    }
    return Job(stage, PodiumConfig.model_validate(config), {"policy": raw}, "gpu")


def planned(one: Job, sizes: tuple[int, ...] = (1, 1, 1, 1)) -> Planned:
    return build(one, meshes.shape_mesh(sizes))


def traced(one: Planned) -> dict[str, float]:
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), one.step.arguments)
    with jax.numpy_dtype_promotion("standard"):
        jaxpr = jax.make_jaxpr(one.step.program)(*shapes)
    return count(jaxpr, decode_steps=one.decode_steps)


@pytest.mark.parametrize("stage", ["ppo", "reward", "sft"])
@pytest.mark.parametrize("remat", ["none", "full"])
def test_operations_from_sizes_are_those_of_the_program(stage: str, remat: str) -> None:
    """To within what sizes leave out: adapters, a reward model's head, a layer's last product, which none repeats."""
    one = planned(job(stage, **{stage: {"remat": remat}}))
    found = traced(one)
    assert found.keys() == one.work.keys()
    for name, operations in found.items():
        assert one.work[name].executed == pytest.approx(operations, rel=0.12), name


def test_operations_of_an_encoder_decoder() -> None:
    raw = folders.T5_CONFIG | {"d_model": 64, "d_kv": 16, "d_ff": 128}
    one = planned(job("ppo", raw, ppo={"lora": None, "remat": "none"}, reward={"lora": None}))
    found = traced(one)
    assert found.keys() == one.work.keys()
    for name, operations in found.items():
        assert one.work[name].executed == pytest.approx(operations, rel=0.25), name


def test_useful_operations_by_hand() -> None:
    """2, 4 and 6 a weight and token; the head where there are logits; nothing for what is computed again."""
    network = planned(job("sft", sft={"remat": "full"})).trained[0]
    # Queries, keys, values, the way back; gate, up and down; two norms.
    layer = 64 * (4 + 2 * 2) * 16 + 4 * 16 * 64 + 3 * 64 * 128 + 2 * 64
    assert weights_of(network.config).decoder == 2 * layer
    assert products(network.config, Texts(16, 0, 128, 128)) == 16 * 128 * (2 * layer + 300 * 64)
    full = planned(job("sft")).work["update"].useful
    adapters = planned(job("sft", sft={"lora": {"r": 2}})).work["update"].useful
    assert full == 6 * 16 * 128 * (2 * layer + 300 * 64)
    assert adapters == pytest.approx(full * 4 / 6)


@pytest.mark.parametrize("stage", ["ppo", "reward", "sft"])
def test_a_run_that_takes_as_long_as_predicted_reports_the_mfu_of_its_plan(stage: str) -> None:
    """Of the same operations, by the same formula, on four chips."""
    one, topology = replace(job(stage, model={"dtype": "bfloat16"}), platform="tpu"), parse("v5e:2x2")
    found = measure.by_shapes(one, topology, trace=False)
    step = time_step(found.phases, topology, "bfloat16", found.links)
    section = one.section
    chips: Any = SimpleNamespace(size=4, devices=np.array([SimpleNamespace(device_kind="TPU v5 lite")], dtype=object))
    if stage == "ppo":
        reward = Network(one.network("policy"), lora_spec(one.config.reward.lora), "policy")
        roles = make_roles(one.network("policy"), reward, one.config.ppo)
        spec = ppo_spec(roles, one.config.ppo, (2,), 0, (2,), None)
        speed = ppo_speed(chips, spec, roles, 16, 64)
    else:
        network = Network(one.network("policy"), lora_spec(section.lora))
        parts, rows, width = planned(one).step.arguments[2].packed.ids.shape
        speed = supervised_speed(
            chips, network, lambda _: Size(width, 0), rows=parts * rows, passes=parts, logits=stage == "sft"
        )
    numbers = speed(1, step.predicted)
    assert numbers["perf/mfu"] == pytest.approx(step.mfu, rel=1e-9)


def test_bytes_of_arguments_are_cut_as_the_mesh_cuts_them() -> None:
    """All of a full model's weights and two moments of each, float32; adapters leave the base frozen."""
    raw = RAW | {"vocab_size": 304, "num_key_value_heads": 4}
    one = job("sft", raw)
    total = weights_of(planned(one).trained[0].config).total
    whole = memory.arguments(planned(one))
    assert whole["trained weights"] == 4 * total
    assert whole["optimizer"] == pytest.approx(8 * total, abs=64)
    assert whole["frozen weights"] == 0
    shared = memory.arguments(planned(one, (1, 1, 4, 2)))
    assert shared["trained weights"] == pytest.approx(whole["trained weights"] / 8, rel=0.05)
    frozen = memory.arguments(planned(job("sft", raw, sft={"lora": {"r": 2}}, model={"dtype": "bfloat16"})))
    assert frozen["frozen weights"] == pytest.approx(2 * total, rel=0.01)


def test_what_a_mesh_cannot_share_is_refused() -> None:
    with pytest.raises(UserError, match=r"platform\.mesh: .* along heads .*tensor=8"):
        planned(job("sft"), (1, 1, 1, 8))
    with pytest.raises(UserError, match=r"sft\.global_batch_size: 16 rows cannot be shared equally by 32 devices"):
        planned(job("sft"), (1, 32, 1, 1))


def test_shapes_alone_give_a_plan_for_gpus() -> None:
    found = measure.by_shapes(job("ppo"), parse("nvidia-h100-80gb:2"), trace=True)
    assert found.fits and not found.compiled
    assert [phase.name for phase in found.phases] == ["prefill", "decode", "reward", "reference", "old", "update"]
    assert all(phase.executed > 0 and phase.moved > 0 for phase in found.phases)
    assert {one.axis for phase in found.phases for one in phase.collectives} == {"fsdp"}


@pytest.mark.parametrize(
    ("message", "needed"),
    [
        (
            "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO temporaries (48.00G) "
            "exceeds available HBM (15.75G).",
            50 * 2**30,
        ),
        (
            "RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 20.50G of "
            "15.75G hbm. Exceeded hbm capacity by 4.75G.",
            int(20.5 * 2**30),
        ),
    ],
)
def test_what_the_compiler_refuses_is_read(message: str, needed: int) -> None:
    assert measure.refusal(message, 2 * 2**30) == (needed, int(15.75 * 2**30))


def test_another_fault_of_the_compiler_is_ours() -> None:
    with pytest.raises(RuntimeError, match="the compiler refused the program: INTERNAL"):
        measure.refusal("INTERNAL: a check failed", 0)


def large(**changed: Any) -> Job:
    """Llama 2 7B, all weights trained, in float32."""
    raw = RAW | {
        "vocab_size": 32000,
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": False,
    }
    return job("sft", raw, sft={"per_device_batch_size": 8, "remat": "none"} | changed)


def test_what_does_not_fit_names_changes_that_would() -> None:
    """On two H100s all weights with their moments do not; adapters do. On one L4 nothing does but more of them."""
    topology = parse("nvidia-h100-80gb:2")
    found = measure.by_shapes(large(), topology, trace=False)
    assert not found.fits
    proposals = advice.changes(large(), topology, found)
    assert "sft.lora" in {key for one in proposals for key in one["set"]}
    assert all(one["peak"] <= found.limit for one in proposals)
    alone = parse("nvidia-l4:1")
    *_, nearest = advice.changes(large(), alone, measure.by_shapes(large(), alone, trace=False))
    assert nearest["topology"].startswith("nvidia-l4:")


def test_a_sweep_gives_the_frontier_of_what_fits() -> None:
    found = sweep.run(job("sft"), parse("nvidia-h100-80gb:2"), lambda _: None)
    points = found["frontier"]
    assert found["tried"] >= found["fitting"] >= len(points) >= 1
    peaks = [one["peak"] for one in points]
    assert peaks == sorted(peaks, reverse=True)
    rates = [one["samples_per_second"] for one in points]
    assert rates == sorted(rates, reverse=True) and all(math.isfinite(rate) for rate in rates)
    assert found["compiled"] == []


def test_a_sweep_in_which_nothing_fits_says_so() -> None:
    with pytest.raises(UserError, match=r"no mesh and batch size of .* fits nvidia-l4:1"):
        sweep.run(large(), parse("nvidia-l4:1"), lambda _: None)
