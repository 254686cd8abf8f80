"""What is fixed when PPO's step is compiled."""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import jax

from podium.generation.sampling import Sampling
from podium.parallel.sharding import Layout
from podium.rlhf.experience import RewardSpec
from podium.rlhf.networks import Network, Weights
from podium.rlhf.objective import Statistics, objective
from podium.rlhf.update import UpdateSchedule


@dataclass(frozen=True)
class PpoSpec:
    """Everything about the step that is fixed at compile time.

    trunk_layers: how many of the lowest layers are the same frozen ones in every network on the policy's base; what the
    rollout computed in them serves all of these. ending: what a response that was cut off is scored with behind it, the
    end token last; empty scores it as it is. rollout: the layout of weights and batch in which the policy answers, None
    for that of training. merge_adapter: answer with the adapter folded into a copy of the base.
    """

    policy: Network
    reference: Network
    critic: Network | None
    rewards: RewardSpec
    sampling: Sampling
    max_new_tokens: int
    eos_ids: tuple[int, ...]
    pad_id: int
    num_ppo_epochs: int
    num_mini_batches: int
    gradient_accumulation_steps: int
    clip_range: float
    value_clip_range: float
    vf_coef: float
    kl_target: float | None
    kl_horizon: float
    unroll_decode: bool
    trunk_layers: int = 0
    ending: tuple[int, ...] = ()
    rollout: Layout | None = None
    merge_adapter: bool = False

    def compute(self, weights: dict[str, Weights]) -> dict[str, Weights]:
        """Give the trained weights, by network, in the type that is computed in."""
        networks = {"policy": self.policy, "critic": self.critic}
        return {name: network.compute(weights[name]) for name, network in networks.items() if network is not None}

    @property
    def schedule(self) -> UpdateSchedule:
        return UpdateSchedule(self.num_ppo_epochs, self.num_mini_batches, self.gradient_accumulation_steps)

    @property
    def objective(self) -> Callable[..., tuple[jax.Array, Statistics]]:
        """The loss of an update, which its arrays complete."""
        return functools.partial(
            objective, clip_range=self.clip_range, value_clip_range=self.value_clip_range, vf_coef=self.vf_coef
        )
