"""A task's key holds how many rows a step has, and not on what it is computed.

Seen to fail: with the mesh in the key, and with a batch that is left open.
"""

from typing import Any

import jax
import pytest

from podium.config import load_config_data, stage_config
from podium.errors import UserError
from podium.stages.batch import with_batch
from podium.stages.manifest import task_key


def key(stage: str, section: dict[str, Any], mesh: Any = "auto") -> str:
    config = {"model": {"name_or_path": "x"}, stage: section, "platform": {"mesh": mesh}}
    settings = stage_config(load_config_data(config, source="test"), stage)
    return task_key(stage, with_batch(stage, settings), {})


ALL = jax.device_count()


@pytest.mark.parametrize("stage", ["sft", "reward", "ppo"])
def test_the_same_rows_are_the_same_task_on_any_mesh(stage: str) -> None:
    rows = 4 * ALL
    given = key(stage, {"global_batch_size": rows})
    assert given == key(stage, {"global_batch_size": rows}, {"data": 2, "tensor": 2})
    assert given == key(stage, {"global_batch_size": rows, "per_device_batch_size": 2})
    assert given == key(stage, {"per_device_batch_size": 4}), "on all devices that are here"
    assert given == key(stage, {"per_device_batch_size": 8}, {"fsdp": -1, "tensor": 2}), "tensor shares no rows"
    assert given != key(stage, {"global_batch_size": 2 * rows})
    assert given != key(stage, {"per_device_batch_size": 8})


def test_micro_batches_of_ppo_share_its_prompts_and_those_of_others_have_their_own() -> None:
    assert key("ppo", {"per_device_batch_size": 4, "gradient_accumulation_steps": 2}) == key(
        "ppo", {"global_batch_size": 4 * ALL}
    )
    assert key("reward", {"per_device_batch_size": 4, "gradient_accumulation_steps": 2}) == key(
        "reward", {"global_batch_size": 8 * ALL}
    )


def test_limits_of_time_decide_nothing() -> None:
    config = {"model": {"name_or_path": "x"}, "platform": {"step_timeout": 5.0, "heartbeat_timeout": 7}}
    settings = stage_config(load_config_data(config, source="test"), "sample")
    plain = stage_config(load_config_data({"model": {"name_or_path": "x"}}, source="test"), "sample")
    assert settings["platform"]["step_timeout"] == 5.0
    assert task_key("sample", settings, {}) == task_key("sample", plain, {})


def test_a_mesh_that_does_not_fit_is_refused_before_anything_is_looked_at() -> None:
    with pytest.raises(UserError, match=r"platform\.mesh"):
        key("ppo", {}, {"data": ALL + 1, "fsdp": 1})
