"""A step's program made from configurations alone is the one that a run compiles for its arrays."""

import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from podium.config import PpoConfig
from podium.models import Model
from podium.models.family import init_adapter, init_params
from podium.models.heads import init_head
from podium.models.lora import lora_spec
from podium.parallel import placement
from podium.parallel.mesh import make_mesh
from podium.rlhf.layout import abstract_arrays, place
from podium.rlhf.networks import Network
from podium.rlhf.program import AbstractStep, abstract_step, jit_steps, make_optimizers
from podium.rlhf.rewards import reward_scores
from podium.rlhf.roles import abstract_sources, fill_roles, make_roles, ppo_spec, reward_network
from podium.rlhf.state import init_state
from support import tiny

SIZE, WIDTH = 8, 8
MESHES = {"data": {"data": 8, "fsdp": 1}, "all": {"data": 2, "fsdp": 2, "tensor": 2}}
# Lowering takes most of the time: one case is enough.
LOWERED = "adapters on one base"
# family, section `ppo`, whether the reward model is an adapter on the policy's base, mesh
CASES = {
    "adapters on one base": ("decoder", {"lora": {"r": 2, "layers": 1}}, True, "all"),
    "adapters, reward model of its own": ("encoder-decoder", {"lora": {"r": 2}}, False, "all"),
    "all weights, critic of an adapter": ("decoder", {"num_mini_batches": 2}, True, "all"),
    "all weights, shared critic": ("decoder", {"critic": {"kind": "shared"}}, False, "data"),
    "critic of the policy": ("decoder", {"lora": {}, "critic": {"init": "policy"}}, False, "data"),
}


def models(kind: str, adapter: bool) -> tuple[Model, Model]:
    config, keys = tiny.CONFIGS[kind], jax.random.split(jax.random.key(0), 3)
    tokenizer = SimpleNamespace(same_as=lambda _: True)
    policy = Model(config=config, params=init_params(config, keys[0])[0], tokenizer=tokenizer, base_digest="one")
    reward = policy.replace(role="reward", head=init_head(config, keys[1]))
    if adapter:
        return policy, reward.replace(lora=tiny.LORA, adapter=init_adapter(config, tiny.LORA, keys[2]))
    return policy, reward.replace(base_digest="other")


def start_of(optimizers, config: PpoConfig):
    return functools.partial(init_state, optimizers=optimizers, kl_coef=config.kl_coef, key=jax.random.key(1))


def described(arrays) -> list[tuple]:
    leaves = jax.tree_util.tree_leaves_with_path(arrays)
    return [(jax.tree_util.keystr(path), x.shape, x.dtype, x.sharding) for path, x in leaves]


def abstract(kind: str, section: dict, adapter: bool, mesh) -> AbstractStep:
    """From sizes and settings: nothing here is an array."""
    network, config = tiny.CONFIGS[kind], PpoConfig(max_new_tokens=4, **section)
    reward = Network(network, tiny.LORA, "policy") if adapter else Network(network, None, "reward")
    roles = make_roles(network, reward, config)
    spec, (optimizers, _) = ppo_spec(roles, config, (tiny.EOS,), tiny.PAD), make_optimizers(roles, config)
    arrays = abstract_arrays(mesh, roles, optimizers, start_of(optimizers, config))
    score = reward_scores(roles.reward, spec)
    return abstract_step(
        spec, optimizers, score, mesh, arrays, size=SIZE, width=WIDTH, per_call=2, sample_rows=config.sample_rows
    )


@pytest.mark.parametrize("name", CASES)
def test_a_program_without_a_model_is_that_of_the_placed_arrays(name: str) -> None:
    kind, section, adapter, mesh = CASES[name]
    mesh, config = make_mesh(**MESHES[mesh]), PpoConfig(max_new_tokens=4, **section)
    planned = abstract(kind, section, adapter, mesh)
    policy, reward = models(kind, adapter)
    roles = make_roles(policy.config, reward_network(reward, policy), config)
    optimizers, _ = make_optimizers(roles, config)
    filled = fill_roles(roles, policy, reward, 0)
    with placement.on(mesh):
        frozen, state = place(mesh, roles, optimizers, *filled, start_of(optimizers, config))
        prompts = jax.tree.map(lambda x: jnp.stack([x, x]), tiny.prompts(SIZE, WIDTH))
        prompts = placement.place_batch(mesh, prompts, dim=1)
        assert described(planned.arguments[:3]) == described((state, frozen, prompts))
        if name != LOWERED:
            return
        spec = ppo_spec(roles, config, (tiny.EOS,), tiny.PAD)
        score = reward_scores(roles.reward, spec)
        program = jit_steps(spec, optimizers, score, mesh, state, per_call=2, sample_rows=config.sample_rows)
        real = program.lower(state, frozen, prompts, np.int32(2))
    lowered = planned.lower()
    assert lowered.as_text() == real.as_text()
    assert lowered.compile().memory_analysis().alias_size_in_bytes > 0, "the state is donated"


def test_roles_of_configurations_are_those_of_models() -> None:
    config = PpoConfig(lora={"r": 2})
    policy, reward = models("decoder", adapter=True)
    network = reward_network(reward, policy)
    assert network == Network(policy.config, tiny.LORA, "policy")
    roles = make_roles(policy.config, network, config)
    assert roles.critic == network and roles.critic_scores
    assert roles.policy == Network(policy.config, lora_spec(config.lora), "policy")
    assert isinstance(abstract_sources(roles)[1]["head"]["kernel"], jax.ShapeDtypeStruct)
