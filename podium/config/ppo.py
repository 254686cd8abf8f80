"""What PPO is told."""

from typing import Literal, Self

from pydantic import Field, model_validator

from podium.config.base import Count, Float, Fraction, NonNegative, Positive, PositiveFloat, Section, TopP, fail
from podium.config.model import LoraConfig
from podium.config.training import TrainingConfig


class CriticConfig(Section):
    """The network that predicts returns."""

    kind: Literal["separate", "shared"] = Field(
        "separate", description="Its own network (or adapter), or a head on the policy's trunk."
    )
    learning_rate: PositiveFloat | None = Field(None, description="Peak learning rate; null takes the policy's.")
    init: Literal["reward", "policy"] = Field("reward", description="Weights it starts from.")


class PpoConfig(TrainingConfig):
    """Proximal policy optimisation against the reward model."""

    max_steps: Positive = Field(100, description="Steps: one rollout and its updates each.")
    per_device_batch_size: Positive = Field(
        16, description="Prompts per device and step; of each micro-batch where global_batch_size is given."
    )
    gradient_accumulation_steps: Positive = Field(1, description="Micro-batches that a minibatch is computed in.")
    num_ppo_epochs: Positive = Field(4, description="Passes over each rollout.")
    num_mini_batches: Positive = Field(1, description="Optimizer steps per pass; they share the rollout equally.")
    learning_rate: PositiveFloat = Field(3e-6, description="Peak learning rate of AdamW for the policy.")
    warmup_ratio: Fraction = Field(0.0, description="Share of the steps in which the learning rate rises from 0.")
    kl_coef: NonNegative = Field(0.05, description="Weight of the KL penalty in each token's reward.")
    kl_estimator: Literal["k1", "k2", "k3"] = Field("k1", description="Per-token estimate of the KL (docs/rlhf.md).")
    kl_target: PositiveFloat | None = Field(
        None, description="KL in nats per response that an adaptive kl_coef steers to; null keeps kl_coef fixed."
    )
    kl_horizon: PositiveFloat = Field(10_000.0, description="Responses over which the adaptive kl_coef reacts.")
    kl_stop: PositiveFloat | None = Field(None, description="KL in nats per response that ends the stage; null: none.")
    clip_range: PositiveFloat = Field(0.2, description="Clip of the probability ratio.")
    value_clip_range: PositiveFloat = Field(0.2, description="Clip of the change of a value.")
    vf_coef: NonNegative = Field(0.1, description="Weight of the value loss.")
    gamma: Fraction = Field(1.0, description="Discount per token.")
    gae_lambda: Fraction = Field(0.95, description="Lambda of generalised advantage estimation.")
    score_samples: Count = Field(
        128,
        description="Answers of the starting policy, before step 1, on which scores are given mean 0 and variance 1; "
        "0 leaves them as they are.",
    )
    whiten_rewards: bool = Field(False, description="Scale the token rewards of a batch to variance 1.")
    missing_eos: Literal["replace", "subtract"] | None = Field(
        None, description="Response without an end: the penalty replaces its score, is subtracted from it, or nothing."
    )
    missing_eos_penalty: Float = Field(
        1.0, description="Size of that penalty, in reward units: replace gives minus this score, subtract takes it off."
    )
    max_new_tokens: Positive = Field(64, description="Longest response, in tokens.")
    temperature: PositiveFloat = Field(1.0, description="Divides the logits, in sampling and in every log-probability.")
    top_k: Count = Field(0, description="Keep the k likeliest tokens; 0 keeps all.")
    top_p: TopP = Field(1.0, description="Keep the likeliest tokens up to this total probability; 1 keeps all.")
    critic: CriticConfig = Field(CriticConfig(), description="The network that predicts returns.")
    lora: LoraConfig | None = Field(
        None, description="Adapters of policy and critic ({} takes the defaults); null trains all weights."
    )
    merge_adapter: bool = Field(
        False,
        description="Answer with the adapter folded into a copy of the base, made anew in each step: fewer operations "
        "a token, for the memory of the copy.",
    )
    sample_rows: Count = Field(4, description="Rollout rows kept at each logging step.")
    save_steps: Positive = Field(20, description="Steps between checkpoints.")
    logging_steps: Positive = Field(1, description="Steps between rows of metrics.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        parts = self.num_mini_batches * self.gradient_accumulation_steps
        if self.global_batch_size is None and self.per_device_batch_size % parts:
            fail(
                "per_device_batch_size",
                f"{self.per_device_batch_size} prompts cannot be shared by num_mini_batches x "
                f"gradient_accumulation_steps = {parts}; write a multiple of {parts}",
            )
        if self.kl_target is None and self.kl_horizon != _default("kl_horizon"):
            fail("kl_horizon", "has no effect while kl_target is null; set kl_target, or leave kl_horizon out")
        if self.kl_target is not None and self.kl_coef == 0:
            fail("kl_coef", "0 can never adapt to kl_target; write a positive start such as 0.05")
        if self.kl_stop is not None and self.kl_target is not None and self.kl_stop <= self.kl_target:
            fail("kl_stop", f"{self.kl_stop} would stop the run at or below kl_target {self.kl_target}; raise it")
        if self.missing_eos is None and self.missing_eos_penalty != _default("missing_eos_penalty"):
            fail("missing_eos_penalty", "has no effect while missing_eos is null; write subtract or replace there")
        if self.merge_adapter and self.lora is None:
            fail("merge_adapter", "has no effect while lora is null; write lora: {}, or leave merge_adapter out")
        if self.critic.kind == "shared" and self.critic.learning_rate is not None:
            fail("critic.learning_rate", "a shared critic trains with the policy; leave it out or use kind: separate")
        return self


def _default(name: str) -> object:
    """Return a field's default: a value that differs was written by somebody."""
    return PpoConfig.model_fields[name].default
