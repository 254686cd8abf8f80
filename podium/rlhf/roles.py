"""Who takes part in a run of PPO: policy, reference, critic and reward model, and which weights they share."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from podium.config import PpoConfig
from podium.errors import UserError
from podium.generation.sampling import Sampling
from podium.models import LoraSpec, Model, TransformerConfig
from podium.models.config import EncoderDecoderConfig
from podium.models.family import init_adapter
from podium.models.heads import init_head
from podium.models.lora import lora_spec, merge_adapter
from podium.ops.loops import decode_unrolled
from podium.rlhf.experience import RewardSpec
from podium.rlhf.networks import Network, Weights
from podium.rlhf.reward import fold_normalisation
from podium.rlhf.spec import PpoSpec
from podium.rlhf.state import Frozen


@dataclass(frozen=True)
class Roles:
    """The networks of a run with their weights; `bases` holds each frozen tree once, however many stand on it.

    reward: None where no model gives the rewards; critic_scores: the critic starts as the reward model, head and all.
    """

    policy: Network
    reference: Network
    critic: Network | None
    reward: Network | None
    weights: dict[str, Weights]
    frozen: Frozen
    critic_scores: bool


def make_roles(policy: Model, reward: Model | None, config: PpoConfig, seed: int) -> Roles:
    """Decide who shares what. Raises UserError where the critic cannot start from the reward model.

    With LoRA, policy, reference, critic, and a reward model trained by LoRA on the same base, share one frozen tree.
    Without, the policy and the critic are full copies. Without a reward model the critic starts from the policy.
    """
    bases: dict[str, Any] = {"policy": policy.params}
    reward_network, reward_weights, same_base = None, {}, False
    if reward is not None:
        same_base = bool(reward.adapter) and reward.base_digest == policy.base_digest
        if not same_base:
            bases["reward"] = _merged(reward)
        reward_network = Network(reward.config, reward.lora if same_base else None, "policy" if same_base else "reward")
        if reward.head is None:
            raise UserError(f"{reward.base}: has no reward head; give the folder that `podium reward` wrote")
        head = fold_normalisation(reward.head, reward.gain, reward.bias)
        reward_weights = {"head": head} | ({"adapter": reward.adapter} if same_base else {})
    policy_key, critic_key = jax.random.split(jax.random.fold_in(jax.random.key(seed), 1))
    spec = lora_spec(config.lora)
    if spec:
        policy_network = Network(policy.config, spec, "policy")
        weights: dict[str, Weights] = {"policy": {"adapter": init_adapter(policy.config, spec, policy_key)}}
    else:
        policy_network = Network(policy.config)
        weights = {"policy": {"base": jax.tree.map(jnp.copy, policy.params)}}
    critic = None
    start = reward if reward is not None and config.critic.init == "reward" else policy
    critic_scores = config.critic.kind == "separate" and start is not policy
    if config.critic.kind == "shared":
        weights["policy"]["head"] = init_head(policy.config, None)
    else:
        _check_critic(start, policy)
        critic, weights["critic"] = _critic(start, policy, spec, same_base, critic_key)
        weights["critic"]["head"] = reward_weights["head"] if critic_scores else init_head(policy.config, None)
        weights["critic"] = jax.tree.map(jnp.copy, weights["critic"])
    reference, frozen = Network(policy.config, None, "policy"), Frozen(bases, reward_weights)
    return Roles(policy_network, reference, critic, reward_network, weights, frozen, critic_scores)


def _critic(
    start: Model, policy: Model, spec: LoraSpec | None, same_base: bool, key: jax.Array
) -> tuple[Network, Weights]:
    """The critic's trunk: the reward model's (or the policy's), as an adapter where the run trains adapters."""
    if spec is None:
        return Network(start.config), {"base": _merged(start)}
    if start.role != "reward":
        return Network(policy.config, spec, "policy"), {"adapter": init_adapter(policy.config, spec, key)}
    if same_base:
        return Network(policy.config, start.lora, "policy"), {"adapter": start.adapter}
    return Network(start.config, spec, "reward"), {"adapter": init_adapter(start.config, spec, key)}


def _check_critic(start: Model, policy: Model) -> None:
    """Refuse a critic that could not value the policy's tokens one by one."""
    reason = None
    if not start.tokenizer.same_as(policy.tokenizer):
        reason = "reads other tokens than the policy"
    elif isinstance(start.config, EncoderDecoderConfig) and start.config.encoder_only:
        reason = "reads whole texts and gives no value for single tokens"
    if reason:
        raise UserError(f"ppo.critic.init: the reward model ({start.base}) {reason}; write policy")


def _merged(model: Model) -> Any:
    if not model.adapter or model.lora is None:
        return model.params
    return merge_adapter(model.params, model.adapter, model.lora)


def ppo_spec(
    roles: Roles, config: PpoConfig, eos_ids: tuple[int, ...], pad_id: int, ending: tuple[int, ...] = ()
) -> PpoSpec:
    """The static part of the step, from the configuration; `ending` as in PpoSpec."""
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
    )


def _trunk_layers(roles: Roles) -> int:
    """Count the lowest layers that policy, critic and reward model take unchanged from the policy's frozen base."""
    if roles.policy.base is None or not isinstance(roles.policy.config, TransformerConfig):
        return 0
    networks = [network for network in (roles.policy, roles.reward, roles.critic) if network is not None]
    adapters = [network.lora for network in networks if network.base == roles.policy.base and network.lora]
    return min(lora.first_layer(roles.policy.config.layers) for lora in adapters)
