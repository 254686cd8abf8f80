"""The estimate of a step's work, which decides how many steps share a call, against XLA's own count."""

import dataclasses
from types import SimpleNamespace

import jax
import pytest

from podium.config import CriticConfig, PpoConfig
from podium.models import Model
from podium.models.config import NetworkConfig
from podium.models.family import init_params
from podium.models.heads import init_head
from podium.rlhf.ppo import make_step
from podium.rlhf.program import step_operations
from podium.rlhf.rewards import reward_scores
from podium.rlhf.roles import fill_roles, make_roles, ppo_spec, reward_network
from podium.rlhf.state import init_state
from podium.training.optimizer import configured
from support import tiny

BATCH, WIDTH, RESPONSE = 4, 16, 16


def model(config: NetworkConfig, embed: int) -> Model:
    """The same layers, of another width: products are most of the work then."""
    config = dataclasses.replace(config, embed=embed, mlp=4 * embed, head_dim=embed // 4)
    params, _ = init_params(config, jax.random.key(0))
    tokenizer = SimpleNamespace(same_as=lambda _: True)
    return Model(config=config, params=params, tokenizer=tokenizer, base_digest=f"random {embed}")


@pytest.mark.parametrize("embed", [64, 256])
@pytest.mark.parametrize("critic", ["shared", "separate"])
@pytest.mark.parametrize("kind, expected", [("decoder", 1.0), ("encoder-decoder", 2.0)])
def test_the_estimate_is_near_xlas_count(kind: str, expected: float, critic: str, embed: int) -> None:
    """XLA counts a loop's body once: so one epoch, and of the rollout one token, which leaves the rollout out."""
    policy, reward = model(tiny.CONFIGS[kind], 64), model(tiny.CONFIGS[kind], embed)
    reward = reward.replace(role="reward", head=init_head(reward.config, jax.random.key(1)))
    config = PpoConfig(num_ppo_epochs=1, max_new_tokens=RESPONSE, critic=CriticConfig(kind=critic))
    roles = make_roles(policy.config, reward_network(reward, policy), config)
    weights, frozen = fill_roles(roles, policy, reward, 0)
    spec = ppo_spec(roles, config, (tiny.EOS,), tiny.PAD)
    optimizers = {name: configured(config, learning_rate=1e-3, total_steps=1)[0] for name in weights}
    step = make_step(spec, optimizers, reward_scores(roles.reward, spec))
    state = init_state(weights, optimizers, kl_coef=0.1, key=jax.random.key(0))
    counted = jax.jit(step).lower(state, frozen, tiny.prompts(BATCH, WIDTH)).cost_analysis()["flops"]
    tokens = BATCH * (WIDTH + RESPONSE)
    rollout = 2.0 * tokens * sum(leaf.size for leaf in jax.tree.leaves(policy.params))
    estimated = step_operations(roles, config.num_ppo_epochs, tokens) - rollout
    assert estimated / counted == pytest.approx(expected, rel=0.2)
