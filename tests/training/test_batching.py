"""Rows of a step and micro-batches, for drawn sizes, devices and minibatches.

Seen to fail: with one micro-batch, however many rows a device takes.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podium.config import PpoConfig, RewardConfig
from podium.errors import UserError
from podium.training.batching import StepRows, step_rows


@given(st.integers(1, 6), st.integers(1, 4), st.integers(1, 40), st.integers(1, 12))
def test_a_global_batch_is_shared_in_as_few_micro_batches_as_fit(
    devices: int, minis: int, each: int, most: int
) -> None:
    size = devices * minis * each
    section = PpoConfig(global_batch_size=size, per_device_batch_size=most, num_mini_batches=minis)
    rows, parts = step_rows("ppo", section, devices, mini_batches=minis, rollouts=True)
    assert rows == size and each % parts == 0 and each // parts <= most
    assert not any(each % fewer == 0 and each // fewer <= most for fewer in range(1, parts))


def test_without_one_every_device_takes_its_own_rows_and_it_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    section = RewardConfig(per_device_batch_size=4, gradient_accumulation_steps=3)
    assert step_rows("reward", section, 1) == StepRows(12, 3) and capsys.readouterr().err == ""
    assert step_rows("reward", section, 2) == StepRows(24, 3)
    assert "write reward.global_batch_size: 24" in capsys.readouterr().err
    # The rows of a rollout are shared by its micro-batches.
    section = PpoConfig(per_device_batch_size=6, gradient_accumulation_steps=3)
    assert step_rows("ppo", section, 2, rollouts=True) == StepRows(12, 3)


def test_rows_that_cannot_be_shared_are_refused_with_sizes_that_can() -> None:
    section = PpoConfig(global_batch_size=10, num_mini_batches=2)
    with pytest.raises(UserError, match=r"ppo.global_batch_size: 10 .* 4 devices in 2 minibatches; .* multiple of 8"):
        step_rows("ppo", section, 4, mini_batches=2)
