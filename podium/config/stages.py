"""What the stages between data and export are told: fine-tuning, sampling, reward training, evaluation, export."""

from typing import Literal, Self

from pydantic import Field, model_validator

from podium.config.base import (
    Count,
    Float,
    Fraction,
    NonNegative,
    OpenFraction,
    Positive,
    PositiveFloat,
    Section,
    TopP,
    fail,
)
from podium.config.model import LoraConfig, ModelConfig
from podium.config.training import SupervisedConfig


class SftConfig(SupervisedConfig):
    """Supervised fine-tuning on demonstrations; the stages after it start from its model."""

    per_device_batch_size: Positive = Field(4, description="Rows per device and micro-batch.")
    learning_rate: PositiveFloat = Field(2e-5, description="Peak learning rate of AdamW.")
    lora: LoraConfig | None = Field(
        None,
        description="Adapters ({} takes the defaults), merged into the weights when training ends; null trains all "
        "weights.",
    )
    packing: bool = Field(
        True,
        description="Fill rows of data.max_length tokens with several demonstrations, which do not see each other; "
        "false puts one in a row.",
    )


class SampleConfig(Section):
    """How candidates are drawn, for the baseline and for the tuned policy alike."""

    max_new_tokens: Positive = Field(64, description="Longest response, in tokens.")
    temperature: NonNegative = Field(1.0, description="Divides the logits; 0 takes the likeliest token.")
    top_k: Count = Field(0, description="Keep the k likeliest tokens; 0 keeps all.")
    top_p: TopP = Field(1.0, description="Keep the likeliest tokens up to this total probability; 1 keeps all.")
    num_generations: Positive = Field(1, description="Responses per prompt.")
    batch_size: Positive = Field(32, description="Responses generated at a time, over all devices.")
    split: Literal["eval", "train"] = Field("eval", description="Which prompts are answered.")
    max_prompts: Positive | None = Field(None, description="Answer only the first so many prompts; null answers all.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.temperature == 0 and self.num_generations > 1:
            fail("num_generations", "temperature 0 gives the same response each time; write 1, or raise temperature")
        return self


class RewardConfig(SupervisedConfig):
    """Reward model training."""

    model: ModelConfig | None = Field(
        None, description="Pretrained model that the reward model starts from, of any family; null: the policy's."
    )
    encoder_only: bool = Field(
        False, description="Of an encoder-decoder, train the encoder alone, which reads prompt and response together."
    )
    loss: Literal["pairwise", "plackett_luce"] = Field(
        "pairwise", description="All pairs of one prompt weighted 1 / (K choose 2), or the whole ranking at once."
    )
    per_device_batch_size: Positive = Field(8, description="Comparisons per device and micro-batch.")
    center_rewards_coefficient: NonNegative = Field(
        0.0, description="Weight of the squared sum of a pair's rewards, which draws their mean to 0."
    )
    normalize: bool = Field(
        True, description="Set gain and bias so that rewards of reference samples have mean 0 and variance 1."
    )
    read_at: Literal["end", "last"] = Field(
        "end",
        description="Where a response without an end is scored: end puts the end token behind it, as behind every "
        "response that was learnt from; last reads it at its last token, as TRL does.",
    )


class GatesConfig(Section):
    """Thresholds that a run must meet; null leaves one out."""

    min_win_rate: Fraction | None = Field(None, description="Least share of held-out prompts won, ties counted half.")
    min_reward_gain: Float | None = Field(None, description="Least rise of the mean held-out reward.")
    max_kl: NonNegative | None = Field(None, description="Most KL from the starting policy, nats per response.")
    min_reward_accuracy: Fraction | None = Field(None, description="Least held-out accuracy of the reward model.")
    max_length_ratio: PositiveFloat | None = Field(
        None, description="Most mean response length of the tuned policy over that of the baseline."
    )
    on_failure: Literal["fail", "warn"] = Field(
        "fail",
        description="fail ends a run whose gates failed with exit code 3, after report and model are written; warn "
        "only says so.",
    )


class EvaluationConfig(Section):
    """The comparison of the tuned policy with its baseline."""

    confidence: OpenFraction = Field(0.95, description="Level of every confidence interval.")
    sample_rows: Count = Field(200, description="Prompts shown side by side in the report.")
    batch_size: Positive = Field(16, description="Responses scored at a time, over all devices.")
    gates: GatesConfig = Field(GatesConfig(), description="Thresholds that decide pass or fail.")


class ExportConfig(Section):
    """The Hugging Face folder that leaves the pipeline."""

    format: Literal["merged", "adapter"] = Field("merged", description="One model, or the LoRA adapter alone.")
    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        "float32",
        description="Type the weights are stored in; float16 holds numbers up to 65504, larger ones are refused.",
    )
    verify: Literal["auto", "always", "never"] = Field(
        "auto", description="Compare logits with transformers; auto does it where torch is installed."
    )
