"""Answers from the adapter folded into its base are those of the adapter beside it.

Seen to fail: with the base as it is, and with the adapter beside the merged base, which counts it twice.
"""

import functools
from dataclasses import replace

import jax
import numpy as np
import optax
import pytest

from podium.config import PpoConfig, load_config_data
from podium.errors import UserError
from podium.rlhf.rollout import Prompts, roll_out
from podium.rlhf.state import init_state
from support import tiny


@pytest.mark.parametrize("kind", ["decoder", "encoder-decoder"])
def test_answers_are_the_same_with_the_adapter_merged(kind: str) -> None:
    spec = tiny.ppo_spec(config=tiny.CONFIGS[kind])
    weights, frozen = tiny.ppo_weights(spec)
    weights["policy"]["adapter"] = jax.tree.map(lambda x: x + 0.1, weights["policy"]["adapter"])
    none = optax.identity()
    state = init_state(weights, {"policy": none, "critic": none}, kl_coef=0.1, key=jax.random.key(0))
    prompts = Prompts(*tiny.prompts(6))

    def answers(merge_adapter: bool):
        program = jax.jit(functools.partial(roll_out, replace(spec, merge_adapter=merge_adapter)))
        return program(frozen.bases, state, prompts)

    beside, merged = answers(False), answers(True)
    np.testing.assert_array_equal(merged.text.response_ids, beside.text.response_ids)
    np.testing.assert_array_equal(merged.finished, beside.finished)
    plain = program_of_base(spec, frozen, state, prompts)
    assert not np.array_equal(plain.text.response_ids, beside.text.response_ids), "the adapter does something"


def program_of_base(spec, frozen, state, prompts):
    zero = jax.tree.map(lambda x: 0 * x, state.weights["policy"])
    state = state._replace(weights=state.weights | {"policy": zero})
    return jax.jit(functools.partial(roll_out, spec))(frozen.bases, state, prompts)


def test_without_an_adapter_there_is_nothing_to_merge() -> None:
    with pytest.raises(UserError, match=r"ppo\.merge_adapter: has no effect while lora is null"):
        load_config_data({"model": {"name_or_path": "x"}, "ppo": {"merge_adapter": True}}, source="test")
    assert PpoConfig(merge_adapter=True, lora={}).merge_adapter
