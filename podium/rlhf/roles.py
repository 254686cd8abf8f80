"""Who takes part in a run of PPO: policy, reference, critic and reward model, and which weights they share.

The roles follow from configurations alone; weights, or the shapes of weights, fill them afterwards.
"""

import functools
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from podium.config import PpoConfig
from podium.errors import UserError
from podium.generation.sampling import Sampling
from podium.models import Model, TransformerConfig, family
from podium.models.config import EncoderDecoderConfig, NetworkConfig
from podium.models.heads import init_head
from podium.models.lora import lora_spec, merge_adapter
from podium.models.precision import in_compute_type
from podium.models.remat import training_config
from podium.ops.loops import decode_unrolled
from podium.parallel.sharding import Layout
from podium.rlhf.experience import RewardSpec
from podium.rlhf.networks import Network, Tree, Weights
from podium.rlhf.reward import fold_normalisation
from podium.rlhf.spec import PpoSpec
from podium.rlhf.state import Frozen


@dataclass(frozen=True)
class Roles:
    """The networks of a run, which name the trees they stand on: "policy", and "reward" where that is another.

    critic: None where it is a head on the policy's trunk; reward: None where no model gives the rewards;
    critic_scores: the critic starts as the reward model, head and all.
    """

    policy: Network
    reference: Network
    critic: Network | None
    reward: Network | None
    critic_scores: bool

    @property
    def trained(self) -> dict[str, Network]:
        """The networks that have weights in the state, by name."""
        return {"policy": self.policy} | ({} if self.critic is None else {"critic": self.critic})


def make_roles(policy: NetworkConfig, reward: Network | None, config: PpoConfig) -> Roles:
    """Decide who shares what; `reward` stands on "policy" where it is an adapter on that base, else on "reward".

    With LoRA, policy, reference, critic, and a reward model trained by LoRA on the same base, share one frozen tree.
    Without, the policy and the critic are full copies. Without a reward model the critic starts from the policy.
    """
    lora, policy_trained = lora_spec(config.lora), training_config(policy, config.remat)
    trained = Network(policy_trained, lora, "policy" if lora else None)
    critic, critic_scores = None, False
    if config.critic.kind == "separate":
        critic, critic_scores = trained, reward is not None and config.critic.init == "reward"
    if critic_scores and reward is not None:
        critic = Network(training_config(reward.config, config.remat), lora, "reward" if lora else None)
        if lora and reward.base == "policy":
            critic = Network(policy_trained, reward.lora, "policy")
    return Roles(trained, Network(policy, None, "policy"), critic, reward, critic_scores)


def reward_network(reward: Model | None, policy: Model) -> Network | None:
    """Say what the reward model stands on. Raises UserError for a model without a reward head."""
    if reward is None:
        return None
    if reward.head is None:
        raise UserError(f"{reward.base}: has no reward head; give the folder that `podium reward` wrote")
    if reward.adapter and reward.base_digest == policy.base_digest:
        return Network(reward.config, reward.lora, "policy")
    return Network(reward.config, None, "reward")


def fill_roles(roles: Roles, policy: Model, reward: Model | None, seed: int) -> tuple[dict[str, Weights], Frozen]:
    """Fill the roles with the weights of models. Raises UserError where the critic cannot start as the reward model."""
    if reward is not None and roles.critic_scores:
        _check_critic(reward, policy)
    key = jax.random.fold_in(jax.random.key(seed), 1)
    return start_weights(roles, policy.params, _reward_weights(roles, reward), key)


def _check_critic(start: Model, policy: Model) -> None:
    """Refuse a critic that could not value the policy's tokens one by one."""
    reason = None
    if not start.tokenizer.same_as(policy.tokenizer):
        reason = "reads other tokens than the policy"
    elif isinstance(start.config, EncoderDecoderConfig) and start.config.encoder_only:
        reason = "reads whole texts and gives no value for single tokens"
    if reason:
        raise UserError(f"ppo.critic.init: the reward model ({start.base}) {reason}; write policy")


def _reward_weights(roles: Roles, reward: Model | None) -> Weights:
    """Give what the reward model brings: its head, normalised, and its adapter, or its base with that merged."""
    if reward is None or reward.head is None or roles.reward is None:
        return {}
    head = fold_normalisation(reward.head, reward.gain, reward.bias)
    if roles.reward.lora:
        return {"head": head, "adapter": reward.adapter}
    merged = reward.params
    if reward.adapter and reward.lora is not None:
        merged = merge_adapter(merged, reward.adapter, reward.lora)
    return {"head": head, "base": merged}


def abstract_sources(roles: Roles) -> tuple[Tree, Weights]:
    """Shapes of the policy's base and of what the reward model brings, as models of these sizes are loaded."""
    policy, _ = family.abstract_params(roles.policy.config)
    if roles.reward is None:
        return policy, {}
    config, lora = roles.reward.config, roles.reward.lora
    base, adapter = family.abstract_params(config, lora)
    head = jax.eval_shape(lambda: init_head(config, None))
    return policy, {"head": head} | ({"adapter": adapter} if lora else {"base": base})


@functools.lru_cache(maxsize=16)
def abstract_start(roles: Roles) -> tuple[dict[str, Weights], Frozen]:
    """Shapes of what `start_weights` gives for models of these sizes, which no mesh changes; not to be written to."""
    key = jax.eval_shape(lambda: jax.random.key(0))
    shapes: tuple[dict[str, Weights], Frozen] = jax.eval_shape(
        functools.partial(start_weights, roles), *abstract_sources(roles), key
    )
    return shapes


def start_weights(roles: Roles, policy: Tree, reward: Weights, key: jax.Array) -> tuple[dict[str, Weights], Frozen]:
    """Fill the roles: what is trained, by network, and what is frozen, each tree once, however many stand on it.

    `policy` is the policy's base; `reward` has the reward model's "head", and its "adapter" over that base or a "base"
    of its own. Pure: shapes give shapes (`jax.eval_shape`).
    """
    bases = {"policy": policy} | ({"reward": reward["base"]} if "base" in reward else {})
    dtypes = {"policy": roles.policy.config.dtype} | ({"reward": roles.reward.config.dtype} if roles.reward else {})
    frozen = Frozen(
        {name: in_compute_type(base, dtypes[name]) for name, base in bases.items()},
        {} if roles.reward is None else roles.reward.compute({name: reward[name] for name in reward if name != "base"}),
    )
    policy_key, critic_key = jax.random.split(key)
    weights = {"policy": _start(roles.policy, policy, policy_key)}
    if roles.critic is None:
        weights["policy"]["head"] = init_head(roles.policy.config, None)
    elif roles.critic_scores and roles.reward is not None:
        weights["critic"] = _critic_from_reward(roles.critic, roles.reward, policy, reward, critic_key)
    else:
        head = init_head(roles.policy.config, None)
        weights["critic"] = _start(roles.critic, policy, critic_key) | {"head": head}
    return weights, frozen


def _start(network: Network, base: Tree, key: jax.Array) -> Weights:
    """A fresh adapter on a base, or a copy of the base, which training may give up."""
    if network.lora is None:
        return {"base": jax.tree.map(jnp.copy, base)}
    return {"adapter": family.init_adapter(network.config, network.lora, key)}


def _critic_from_reward(critic: Network, reward: Network, policy: Tree, brought: Weights, key: jax.Array) -> Weights:
    """The reward model with its head, as an adapter where the run trains adapters."""
    head = jax.tree.map(jnp.copy, brought["head"])
    if critic.lora is None and reward.lora is not None:
        merged = merge_adapter(policy, brought["adapter"], reward.lora)
        return {"base": jax.tree.map(jnp.copy, merged), "head": head}
    if critic.lora is not None and reward.lora is not None:
        return {"adapter": jax.tree.map(jnp.copy, brought["adapter"]), "head": head}
    return _start(critic, brought.get("base"), key) | {"head": head}


def ppo_spec(
    roles: Roles,
    config: PpoConfig,
    eos_ids: tuple[int, ...],
    pad_id: int,
    ending: tuple[int, ...] = (),
    rollout: Layout | None = None,
) -> PpoSpec:
    """The static part of the step, from the configuration; `ending` and `rollout` as in PpoSpec."""
    return PpoSpec(
        policy=roles.policy,
        reference=roles.reference,
        critic=roles.critic,
        rewards=RewardSpec(
            gamma=config.gamma,
            gae_lambda=config.gae_lambda,
            kl_estimator=config.kl_estimator,
            whiten_rewards=config.whiten_rewards,
            missing_eos=config.missing_eos,
            missing_eos_penalty=config.missing_eos_penalty,
        ),
        sampling=Sampling(config.temperature, config.top_k, config.top_p),
        max_new_tokens=config.max_new_tokens,
        eos_ids=eos_ids,
        pad_id=pad_id,
        num_ppo_epochs=config.num_ppo_epochs,
        num_mini_batches=config.num_mini_batches,
        gradient_accumulation_steps=config.gradient_accumulation_steps,
        clip_range=config.clip_range,
        value_clip_range=config.value_clip_range,
        vf_coef=config.vf_coef,
        kl_target=config.kl_target,
        kl_horizon=config.kl_horizon,
        unroll_decode=decode_unrolled(roles.policy.config.layers, roles.policy.config.implementation),
        trunk_layers=_trunk_layers(roles),
        ending=ending,
        rollout=rollout,
        merge_adapter=config.merge_adapter,
    )


def _trunk_layers(roles: Roles) -> int:
    """Count the lowest layers that policy, critic and reward model take unchanged from the policy's frozen base."""
    if roles.policy.base is None or not isinstance(roles.policy.config, TransformerConfig):
        return 0
    networks = [network for network in (roles.policy, roles.reward, roles.critic) if network is not None]
    adapters = [network.lora for network in networks if network.base == roles.policy.base and network.lora]
    return min(lora.first_layer(roles.policy.config.layers) for lora in adapters)
