"""What every training section has: the optimizer, adapters, and how often a run saves and reports."""

from typing import Literal, Self

from pydantic import Field, model_validator

from podium.config.base import Fraction, NonNegative, Positive, PositiveFloat, Section, fail
from podium.config.model import LoraConfig

Schedule = Literal["constant", "linear", "cosine"]
Resume = Literal["auto", "never"]
Remat = Literal["auto", "none", "dots", "full"]


class TrainingConfig(Section):
    """Optimizer, adapters, saving and reporting of one training phase."""

    learning_rate: PositiveFloat = Field(1e-5, description="Peak learning rate of AdamW.")
    lr_scheduler_type: Schedule = Field("linear", description="Course of the learning rate after the warm-up.")
    warmup_ratio: Fraction = Field(0.03, description="Share of the steps in which the learning rate rises from 0.")
    weight_decay: NonNegative = Field(0.0, description="Decoupled weight decay of AdamW.")
    max_grad_norm: PositiveFloat = Field(1.0, description="Gradients are scaled down to this global norm.")
    global_batch_size: Positive | None = Field(
        None,
        description="Rows of a step, over all devices: the same on any number of them. per_device_batch_size then "
        "bounds what a device takes at a time. null: per_device_batch_size times devices.",
    )
    per_device_batch_size: Positive = Field(8, description="Rows per device and micro-batch.")
    gradient_accumulation_steps: Positive = Field(
        1, description="Micro-batches per optimizer step; follows from global_batch_size where that is given."
    )
    lora: LoraConfig | None = Field(None, description="Adapters ({} takes the defaults); null trains all weights.")
    remat: Remat = Field(
        "auto",
        description="What the backward pass computes again to save memory: nothing, all but products with weights "
        "(dots), or all of each layer (full); auto: none on a CPU, full on an accelerator.",
    )
    save_steps: Positive = Field(100, description="Optimizer steps between checkpoints.")
    save_minutes: PositiveFloat = Field(5.0, description="Minutes between checkpoints; one is due when either is.")
    logging_steps: Positive = Field(10, description="Optimizer steps between rows of metrics.")
    resume: Resume = Field("auto", description="auto continues from the last checkpoint; never starts again.")

    @model_validator(mode="after")
    def _check_batch(self) -> Self:
        if self.global_batch_size is not None and self.gradient_accumulation_steps != 1:
            fail("gradient_accumulation_steps", "follows from global_batch_size; leave one of the two out")
        return self


class SupervisedConfig(TrainingConfig):
    """Training that passes over records."""

    num_train_epochs: PositiveFloat = Field(1.0, description="Passes over the records; max_steps goes before it.")
    max_steps: Positive | None = Field(None, description="Optimizer steps; null follows num_train_epochs.")
