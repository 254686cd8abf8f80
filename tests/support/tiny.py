"""Tiny networks and PPO set-ups that several tests share."""

import jax
import jax.numpy as jnp
import numpy as np

from podium.generation.sampling import Sampling
from podium.models import family
from podium.models.config import EncoderDecoderConfig, NetworkConfig, TransformerConfig
from podium.models.heads import init_head
from podium.models.lora import LoraSpec
from podium.rlhf.experience import RewardSpec
from podium.rlhf.networks import Network
from podium.rlhf.rollout import Prompts
from podium.rlhf.spec import PpoSpec
from podium.rlhf.state import Frozen

CONFIG = TransformerConfig(
    vocab_size=96,
    embed=32,
    layers=2,
    heads=4,
    kv_heads=2,
    head_dim=8,
    mlp=64,
    max_position=128,
    rope_theta=1e4,
    norm_eps=1e-5,
    tie_embeddings=True,
)
T5 = EncoderDecoderConfig(
    vocab_size=96,
    embed=32,
    encoder_layers=2,
    decoder_layers=2,
    heads=4,
    kv_heads=4,
    head_dim=8,
    mlp=64,
    norm_eps=1e-6,
    tie_embeddings=False,
    activation="gelu_tanh",
    query_scale=1.0,
)
CONFIGS: dict[str, NetworkConfig] = {"decoder": CONFIG, "encoder-decoder": T5}
LORA = LoraSpec(4, 8.0)
EOS, PAD = 1, 0
# For jax.jit: compile as users do, whatever conftest sets for the rest.
OPTIMISED = {"compiler_options": {"xla_backend_optimization_level": 3, "xla_cpu_use_fusion_emitters": True}}


def params(seed: int = 0, config: NetworkConfig = CONFIG):
    """Weights five times the usual size, so that logits, and errors in them, are far from zero."""
    tree, _ = family.init_params(config, jax.random.key(seed))
    return jax.tree.map(lambda x: 5 * x if x.ndim > 1 else x, tree)


def prompts(batch: int, width: int = 8, seed: int = 0) -> Prompts:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(2, width + 1, batch)
    mask = np.arange(width)[None, :] >= width - lengths[:, None]
    ids = np.where(mask, rng.integers(2, CONFIG.vocab_size, (batch, width)), PAD)
    return Prompts(jnp.asarray(ids, jnp.int32), jnp.asarray(mask))


def ppo_spec(*, config: NetworkConfig = CONFIG, lora: bool = True, critic: str = "separate", **changes) -> PpoSpec:
    """A small run: 8 new tokens, 2 epochs, 2 minibatches."""
    rewards = RewardSpec(
        **{
            "gamma": 1.0,
            "gae_lambda": 0.95,
            "kl_estimator": "k1",
            "whiten_rewards": False,
            "missing_eos": None,
            "missing_eos_penalty": 1.0,
        }
        | changes.pop("rewards", {})
    )
    policy = Network(config, LORA, "policy") if lora else Network(config)
    settings = {
        "policy": policy,
        "reference": Network(config, None, "policy"),
        "critic": policy if critic == "separate" else None,
        "rewards": rewards,
        "sampling": Sampling(1.0),
        "max_new_tokens": 8,
        "eos_ids": (EOS,),
        "pad_id": PAD,
        "num_ppo_epochs": 2,
        "num_mini_batches": 2,
        "gradient_accumulation_steps": 1,
        "clip_range": 0.2,
        "value_clip_range": 0.2,
        "vf_coef": 0.1,
        "kl_target": None,
        "kl_horizon": 10_000.0,
        "unroll_decode": False,
    }
    return PpoSpec(**settings | changes)


def ppo_weights(spec: PpoSpec, base=None):
    """Start weights of policy and critic for a spec, and the frozen part."""
    config = spec.policy.config
    base = params(config=config) if base is None else base
    policy, critic = ({}, {})
    if spec.policy.lora:
        policy["adapter"] = family.init_adapter(config, LORA, jax.random.key(1))
    else:
        policy["base"] = jax.tree.map(jnp.copy, base)
    if spec.critic is None:
        policy["head"] = init_head(config, None)
        return {"policy": policy}, Frozen({"policy": base}, {})
    if spec.critic.lora:
        critic["adapter"] = family.init_adapter(config, LORA, jax.random.key(2))
    else:
        critic["base"] = jax.tree.map(jnp.copy, base)
    critic["head"] = init_head(config, jax.random.key(3))
    return {"policy": policy, "critic": critic}, Frozen({"policy": base}, {})


def count_reward(frozen, rollout):
    """Share of low token ids among all tokens: any policy can raise it."""
    ids, mask = rollout.text.joined()
    low = (ids < CONFIG.vocab_size // 4) & mask
    return 4.0 * low.sum(1).astype(jnp.float32) / mask.sum(1).astype(jnp.float32) - 1.5
