"""Which files hold preferences, prompts and demonstrations, and how much of them is kept."""

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from podium.config.base import Fraction, OpenFraction, Positive, Section, fail
from podium.config.places import Location


class Source(Section):
    """One file of rows."""

    path: Location = Field(
        description="JSONL, JSON, CSV, Parquet or Arrow file, also compressed; relative to the YAML that names it, or "
        "a gs://, s3:// or hf:// URI; * and ? stand for all files that fit.",
    )
    format: str = Field("auto", description="Name of the row format (docs/data-formats.md); auto looks at the columns.")


def _one_or_many(value: Any) -> Any:
    """Accept one source where a list is due."""
    return [value] if isinstance(value, str | dict | Source) else value


def _path_only(value: Any) -> Any:
    """Accept a plain path where a source is due."""
    return {"path": value} if isinstance(value, str) else value


# The fields of DataConfig that name files; only `prepare` reads them.
FILE_FIELDS = (
    "preferences",
    "prompts",
    "demonstrations",
    "eval_preferences",
    "eval_prompts",
    "eval_demonstrations",
)
Sources = Annotated[tuple[Annotated[Source, BeforeValidator(_path_only)], ...], BeforeValidator(_one_or_many)]


class DataConfig(Section):
    """Input files and limits; `prepare` reads the files, every later stage only the limits."""

    preferences: Sources = Field((), description="Files of compared responses: a path, a mapping, or a list of them.")
    prompts: Sources = Field((), description="Files of prompts that PPO answers, in the same form.")
    demonstrations: Sources = Field((), description="Files of prompts with the answer to learn, in the same form.")
    eval_preferences: Sources | None = Field(
        None, description="Held-out preferences; null splits them off by the hash of the prompt."
    )
    eval_prompts: Sources | None = Field(
        None, description="Held-out prompts; null splits them off by the hash of the prompt."
    )
    eval_demonstrations: Sources | None = Field(
        None, description="Held-out demonstrations; null splits them off by the hash of the prompt."
    )
    eval_fraction: OpenFraction = Field(
        0.1, description="Share of the prompts held out where no held-out file is named."
    )
    max_prompt_length: Positive = Field(256, description="Longest prompt, in tokens of the model's tokenizer.")
    max_length: Positive = Field(512, description="Longest prompt and response together, in tokens.")
    max_bad_fraction: Fraction = Field(
        0.01, description="Share of a file's rows that may be refused before the stage stops."
    )
    instruction: str | None = Field(None, description="System message put before every prompt.")
    ties: Literal["drop", "keep"] = Field(
        "drop", description="What becomes of responses ranked equal: no pair, or kept for losses that model ties."
    )

    @property
    def files(self) -> tuple[Source, ...]:
        """Every file that is named, in the order of FILE_FIELDS."""
        return tuple(source for name in FILE_FIELDS for source in getattr(self, name) or ())

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.max_length <= self.max_prompt_length:
            fail(
                "max_length",
                f"{self.max_length} leaves no room for a response after max_prompt_length: {self.max_prompt_length}; "
                "raise it or lower max_prompt_length",
            )
        return self
