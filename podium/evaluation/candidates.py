"""Read and write candidates.jsonl: for each prompt the answers of one model, with how they were sampled."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from podium.data.records import Message
from podium.errors import UserError

CANDIDATES_FILE = "candidates.jsonl"


class SamplingRecord(BaseModel):
    """How answers were drawn. A row's random stream depends on the seed and its place among all answers alone."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_new_tokens: int = Field(gt=0)
    temperature: float = Field(ge=0)
    top_k: int = Field(ge=0)
    top_p: float = Field(gt=0, le=1)
    seed: int


class Response(BaseModel):
    """One answer. token_ids end with the end token where there is one; num_tokens counts it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    text: str
    num_tokens: int = Field(gt=0)
    finish_reason: str
    token_ids: list[int] = Field(min_length=1)


class Candidates(BaseModel):
    """All answers to one prompt. model names who answered, model_digest identifies its weights."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    prompt: list[Message] = Field(min_length=1)
    responses: list[Response] = Field(min_length=1)
    model: str
    model_digest: str = ""
    sampling: SamplingRecord


def write_candidates(folder: Path, rows: Iterable[Candidates]) -> None:
    """Write candidates.jsonl into a folder, which is made where it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    write_rows(folder / CANDIDATES_FILE, (row.model_dump(mode="json") for row in rows))


def read_candidates(folder: Path) -> list[Candidates]:
    """Read candidates.jsonl of a folder.

    Raises UserError for a missing or empty file, a line that is no candidate (with its number), and rows that were
    sampled in different ways or have different numbers of answers: those cannot be one side of a comparison.
    """
    path = folder / CANDIDATES_FILE
    if not path.is_file():
        raise UserError(f"{path}: no such file; `podium sample` writes it")
    rows = []
    with path.open(encoding="utf-8", newline="\n") as stream:
        for number, line in enumerate(stream, start=1):
            try:
                rows.append(Candidates.model_validate_json(line))
            except ValidationError as error:
                first = error.errors()[0]
                where = ".".join(str(part) for part in first["loc"])
                raise UserError(
                    f"{path}:{number}: {where or 'line'}: {first['msg']}; run `podium sample` again"
                ) from None
    if not rows:
        raise UserError(f"{path}: holds no candidates; run `podium sample` on at least one prompt")
    for number, row in enumerate(rows, start=1):
        if row.sampling != rows[0].sampling or len(row.responses) != len(rows[0].responses):
            raise UserError(
                f"{path}:{number}: is sampled differently from line 1; put one `podium sample` run in a file"
            )
    return rows


def write_rows(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write one JSON object a line."""
    with path.open("w", encoding="utf-8", newline="\n") as stream:
        stream.writelines(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
