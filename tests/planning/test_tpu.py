"""A step compiled for TPUs that are not there, through the process that `podium plan` starts.

One layer of a small network and one micro-batch: seconds of compiling.
"""

from pathlib import Path
from typing import Any

import pytest

from podium.config import PodiumConfig
from podium.planning import requests
from podium.planning.results import plan_of
from podium.planning.topology import parse
from support import folders

# The head size is one that the kernel for TPUs takes.
RAW = folders.CONFIG | {
    "vocab_size": 512,
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
}


@pytest.fixture
def request_for_tpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> requests.Request:
    monkeypatch.setenv("PODIUM_CACHE", str(tmp_path))
    config = {
        "model": {"name_or_path": "m", "dtype": "bfloat16"},
        "data": {"max_prompt_length": 64, "max_length": 128},
        "sft": {"global_batch_size": 8, "per_device_batch_size": 4, "max_steps": 100},
        "platform": {"mesh": {"fsdp": 2, "tensor": 2}},
    }
    return requests.Request("sft", PodiumConfig.model_validate(config), {"policy": RAW}, parse("v5e:2x2"))


def test_a_step_is_compiled_and_read(request_for_tpus: requests.Request) -> None:
    """Weights and states are cut by four; layers are gathered over fsdp once a pass, and not all at once."""
    said: list[str] = []
    plan: dict[str, Any] = plan_of(request_for_tpus, requests.answer(request_for_tpus, said.append), 1.2)
    assert plan["compiled"] and plan["fits"] and plan["compile_seconds"] > 0
    assert said[0] == "tracing the sft step" and "compiling the sft step for v5e:2x2" in said
    kinds = plan["memory"]["kinds"]
    assert kinds["optimizer"] == pytest.approx(2 * kinds["trained weights"], rel=0.01)
    assert 0 < plan["memory"]["peak"] < 2**28
    (phase,) = plan["phases"]
    assert phase["executed"] > phase["useful"] > 0
    gathers = [one for one in phase["exchanges"] if one["kind"] == "all-gather" and one["axis"] == "fsdp"]
    # Seven products of a layer, 3 layers, forward and backward.
    assert sum(one["count"] for one in gathers) >= 3 * 7
    assert {one["axis"] for one in phase["exchanges"]} <= {"fsdp", "tensor", "fsdp+tensor", "none"}
    assert plan["hops"].keys() == {"fsdp", "tensor"}
    assert plan["chosen"] is None, "the config says the mesh"
    assert plan["run"]["cost"] == pytest.approx(100 * plan["step"]["predicted_seconds"] / 3600 * 4 * 1.2)
    assert not any("rematerialization" in note for note in plan["notes"])
