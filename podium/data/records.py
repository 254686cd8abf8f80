"""The canonical records: an n-way comparison of responses, a prompt, and a prompt with the answer to learn."""

from __future__ import annotations

import hashlib
import itertools
import json
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from typing_extensions import TypedDict

from podium.errors import UserError

Record = TypeVar("Record", bound=BaseModel)
Role = Literal["system", "user", "assistant"]


class Message(TypedDict):
    """One turn of a conversation."""

    role: Role
    content: str


class PromptRecord(BaseModel):
    """A conversation that waits for an answer."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    prompt: list[Message] = Field(min_length=1)
    source: str | None = None
    metadata: dict[str, Any] = {}


class DemonstrationRecord(BaseModel):
    """A prompt and the response that a model is to learn; `weight` is how much each of its tokens counts, None: 1."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    prompt: list[Message] = Field(min_length=1)
    response: str
    source: str | None = None
    weight: float | None = Field(None, ge=0)
    metadata: dict[str, Any] = {}


class PreferenceRecord(BaseModel):
    """Several responses to one prompt, ranked: 1 is the best, equal ranks are ties.

    ``shown_order`` lists response indices in the order in which the rater saw them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    prompt: list[Message] = Field(min_length=1)
    responses: list[str] = Field(min_length=2)
    ranks: list[int]
    margin: float | None = None
    rater: str | None = None
    source: str | None = None
    weight: float | None = None
    shown_order: list[int] | None = None
    metadata: dict[str, Any] = {}

    @model_validator(mode="after")
    def _check_lengths(self) -> Self:
        if len(self.ranks) != len(self.responses):
            raise ValueError(f"{len(self.responses)} responses but {len(self.ranks)} ranks")
        if min(self.ranks) < 1:
            raise ValueError(f"rank {min(self.ranks)}: ranks start at 1, the best")
        if self.shown_order is not None and sorted(self.shown_order) != list(range(len(self.responses))):
            raise ValueError(f"shown_order {self.shown_order} does not name every response once, from 0")
        return self


def pairs(record: PreferenceRecord) -> Iterator[tuple[int, int]]:
    """Yield (index of the better, index of the worse) for each pair of responses that is not tied."""
    for first, second in itertools.combinations(range(len(record.ranks)), 2):
        if record.ranks[first] < record.ranks[second]:
            yield first, second
        elif record.ranks[first] > record.ranks[second]:
            yield second, first


def normalised_prompt(prompt: Sequence[Message]) -> str:
    """Return the prompt without the differences that do not make it another prompt: case, width, white space."""
    turns = (f"{turn['role']}: {turn['content']}" for turn in prompt)
    return "\n".join(" ".join(unicodedata.normalize("NFKC", turn).casefold().split()) for turn in turns)


def digest(*parts: object) -> str:
    """Return 16 hexadecimal digits that depend on the parts only."""
    text = json.dumps(parts, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def write_jsonl(path: Path, records: Iterable[BaseModel]) -> None:
    """Write one record a line; fields that are not set are left out."""
    with path.open("w", encoding="utf-8", newline="\n") as stream:
        for record in records:
            stream.write(json.dumps(record.model_dump(exclude_defaults=True), ensure_ascii=False) + "\n")


def read_preferences(path: Path) -> list[PreferenceRecord]:
    """Read a file of canonical comparisons; a line that is not one raises UserError with file and line."""
    return [_parse(PreferenceRecord, path, number, line) for number, line in _lines(path)]


def read_prompts(path: Path) -> list[PromptRecord]:
    """Read a file of canonical prompts; a line that is not one raises UserError with file and line."""
    return [_parse(PromptRecord, path, number, line) for number, line in _lines(path)]


def read_demonstrations(path: Path) -> list[DemonstrationRecord]:
    """Read a file of canonical demonstrations; a line that is not one raises UserError with file and line."""
    return [_parse(DemonstrationRecord, path, number, line) for number, line in _lines(path)]


def read_jsonl(path: Path) -> list[PreferenceRecord] | list[PromptRecord]:
    """Read a canonical file of either kind: comparisons have ``responses``, prompts have none."""
    with path.open(encoding="utf-8") as stream:
        return read_preferences(path) if '"responses":' in stream.readline() else read_prompts(path)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    if not path.is_file():
        raise UserError(f"{path}: no such file; `podium prepare` writes it")
    with path.open(encoding="utf-8", newline="\n") as stream:
        yield from enumerate(stream, start=1)


def _parse(kind: type[Record], path: Path, number: int, line: str) -> Record:
    try:
        return kind.model_validate_json(line)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "record"
        advice = "let `podium prepare` write this file: it reads every accepted format"
        raise UserError(f"{path}:{number}: {where}: {first['msg']}; {advice}") from None
