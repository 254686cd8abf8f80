"""What an update minimises, and its statistics: means over the tokens of the whole batch, taken part by part."""

from typing import NamedTuple

import jax

from podium.losses import masked
from podium.losses.ppo import PolicyStats, ValueStats, policy_loss, value_loss
from podium.rlhf.experience import Experience, Predictions


class Statistics(NamedTuple):
    """Statistics of an update: those of its parts add up to those of the whole."""

    policy_loss: jax.Array
    value_loss: jax.Array
    entropy: jax.Array
    policy: PolicyStats
    value: ValueStats

    def named(self) -> dict[str, jax.Array]:
        """Give the metrics by name, once the parts were added up."""
        return {
            "loss/policy_avg": self.policy_loss,
            "loss/value_avg": self.value_loss,
            "policy/approxkl_avg": self.policy.approxkl,
            "policy/clipfrac_avg": self.policy.clipfrac,
            "policy/entropy_avg": self.entropy,
            "val/clipfrac_avg": self.value.clipfrac,
            "val/error": self.value.error,
            "val/ratio": self.policy.ratio,
            "val/ratio_var": self.policy.ratio_var,
        }


def objective(
    predictions: Predictions,
    experience: Experience,
    mask: jax.Array,
    total: jax.Array,
    *,
    clip_range: float,
    value_clip_range: float,
    vf_coef: float,
) -> tuple[jax.Array, Statistics]:
    """Return the policy's loss plus `vf_coef` of the value's, and statistics; arrays are [rows, response].

    `total` is the number of tokens that count in the whole batch, of which these rows may be a part.
    """
    logprobs, values, entropies = predictions
    assert values is not None and entropies is not None, "the loss of a critic and a statistic need them"
    policy, policy_stats = policy_loss(
        logprobs, experience.logprobs, experience.advantages, mask, clip_range=clip_range, total=total
    )
    value, value_stats = value_loss(
        values, experience.values, experience.returns, mask, clip_range=value_clip_range, total=total
    )
    stats = Statistics(policy, value, masked.mean(entropies, mask, total=total), policy_stats, value_stats)
    return policy + vf_coef * value, stats
