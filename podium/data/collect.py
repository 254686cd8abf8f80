"""Read all files of a data set, check every row, and refuse the set where too many rows are bad."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from pydantic import BaseModel

from podium.config.data import DataConfig, Source
from podium.data.columns import kept_columns
from podium.data.conversations import unread_keys
from podium.data.fields import Refused
from podium.data.records import DemonstrationRecord, Message, PreferenceRecord, PromptRecord, normalised_prompt
from podium.data.sources import Refusal, Row, expand, parse_rows, read_content
from podium.data.tokenizer import Tokenizer
from podium.errors import UserError

Record = TypeVar("Record", bound=PreferenceRecord | PromptRecord | DemonstrationRecord)
AnyModel = TypeVar("AnyModel", bound=BaseModel)


@dataclass(frozen=True)
class Located(Generic[Record]):
    """An accepted record, where it came from, and its sizes in tokens.

    `key` is the normalised prompt without data.instruction: equal keys are the same question.
    """

    record: Record
    file: str
    line: int
    key: str
    prompt_tokens: int
    response_tokens: tuple[int, ...]


@dataclass(frozen=True)
class FileCount:
    """What one file held; `sha256` is of the file as it lies there."""

    file: str
    sha256: str
    rows: int
    refused: int


@dataclass(frozen=True)
class Collected(Generic[Record]):
    """All rows of a data set, the columns that became metadata, and keys of messages that were left out."""

    rows: list[Located[Record]]
    refused: list[Refusal]
    files: list[FileCount]
    columns: tuple[str, ...] = ()
    message_keys: tuple[str, ...] = ()


@dataclass(frozen=True)
class Limits:
    """What a record may be: lengths in tokens of `tokenizer`, after `instruction` was put before the prompt."""

    tokenizer: Tokenizer
    max_prompt_length: int
    max_length: int
    instruction: str | None

    @staticmethod
    def of(config: DataConfig, tokenizer: Tokenizer) -> Limits:
        """Return the limits of a configuration. Raises UserError where the model can take no instruction."""
        limits = Limits(tokenizer, config.max_prompt_length, config.max_length, config.instruction)
        if config.instruction is not None:
            _refuse_control_token(tokenizer, config.instruction, "data.instruction", error=UserError)
            tokenizer.encode_prompt(instructed([Message(role="user", content="a")], config.instruction))
        return limits


def collect(
    sources: Sequence[Source],
    read: Callable[[Mapping[str, Any], str], Record],
    limits: Limits,
    *,
    max_bad_fraction: float,
) -> Collected[Record]:
    """Read every source with `read`; raises UserError where a file has more than `max_bad_fraction` refused rows."""
    rows: list[Located[Record]] = []
    refused: list[Refusal] = []
    files = []
    columns: set[str] = set()
    keys: set[str] = set()
    for path, format in ((path, source.format) for source in sources for path in expand(source.path)):
        content = read_content(path)
        matches = []
        for row in parse_rows(path, content):
            matches.append(located := _located(row, read, format, limits))
            if isinstance(row, Row) and isinstance(located, Located):
                kept = kept_columns(row.values, located.record.metadata)
                columns |= kept
                keys |= {key for name, value in row.values.items() if name not in kept for key in unread_keys(value)}
        bad = [item for item in matches if isinstance(item, Refusal)]
        rows += [item for item in matches if isinstance(item, Located)]
        refused += bad
        files.append(FileCount(path, hashlib.sha256(content).hexdigest(), len(matches), len(bad)))
        _check_bad_fraction(path, len(matches), bad, max_bad_fraction)
    return Collected(rows, refused, files, tuple(sorted(columns)), tuple(sorted(keys)))


def _located(
    row: Row | Refusal, read: Callable[[Mapping[str, Any], str], Record], format: str, limits: Limits
) -> Located[Record] | Refusal:
    if isinstance(row, Refusal):
        return row
    try:
        return _measured(read(row.values, format), row, limits)
    except Refused as reason:
        return Refusal(row.file, row.line, reason.kind, str(reason))


def _measured(record: Record, row: Row, limits: Limits) -> Located[Record]:
    responses = _responses(record)
    for turn in record.prompt:
        _refuse_control_token(limits.tokenizer, turn["content"], "the prompt")
    for name, response in responses.items():
        _refuse_control_token(limits.tokenizer, response, name)
    prompt = instructed(record.prompt, limits.instruction)
    prompt_tokens = _prompt_tokens(prompt, limits)
    response_tokens = tuple(len(limits.tokenizer.encode_response(response)) for response in responses.values())
    for name, count in zip(responses, response_tokens, strict=True):
        if prompt_tokens + count > limits.max_length:
            raise Refused(
                "long_response",
                f"prompt and {name} have {prompt_tokens} + {count} tokens, more than data.max_length "
                f"{limits.max_length}; shorten them or raise it",
            )
    return Located(
        record=_changed(record, prompt=prompt),
        file=row.file,
        line=row.line,
        key=normalised_prompt(record.prompt),
        prompt_tokens=prompt_tokens,
        response_tokens=response_tokens,
    )


def _responses(record: PreferenceRecord | PromptRecord | DemonstrationRecord) -> dict[str, str]:
    """Return the responses of a record by what a reader calls them."""
    if isinstance(record, PreferenceRecord):
        return {f"response {place}": response for place, response in enumerate(record.responses, start=1)}
    return {"the response": record.response} if isinstance(record, DemonstrationRecord) else {}


def _changed(record: AnyModel, **fields: object) -> AnyModel:
    return record.model_copy(update=fields)


def _prompt_tokens(prompt: list[Message], limits: Limits) -> int:
    try:
        count = len(limits.tokenizer.encode_prompt(prompt))
    except UserError as error:
        raise Refused("template", str(error)) from None
    if count > limits.max_prompt_length:
        raise Refused(
            "long_prompt",
            f"the prompt has {count} tokens, more than data.max_prompt_length {limits.max_prompt_length}; "
            "shorten it or raise the limit",
        )
    return count


def _refuse_control_token(tokenizer: Tokenizer, text: str, name: str, error: type[Exception] | None = None) -> None:
    token = tokenizer.control_token_in(text)
    if token is None:
        return
    reason = f"{name} spells the model's control token {token}, which would end or forge a turn; take it out"
    raise Refused("control_token", reason) if error is None else error(reason)


def instructed(prompt: list[Message], instruction: str | None) -> list[Message]:
    """Put the instruction before the prompt as a system message; before the text of one that is there already."""
    if instruction is None:
        return prompt
    if prompt[0]["role"] == "system":
        first = Message(role="system", content=f"{instruction}\n\n{prompt[0]['content']}")
        return [first, *prompt[1:]]
    return [Message(role="system", content=instruction), *prompt]


def _check_bad_fraction(file: str, rows: int, refused: Sequence[Refusal], max_bad_fraction: float) -> None:
    if rows == 0:
        raise UserError(f"{file}: no rows; write at least one (docs/data-formats.md shows a row of each format)")
    if len(refused) <= max_bad_fraction * rows and len(refused) < rows:
        return
    if len(refused) == rows:
        head = f"{file}: none of the {rows} rows can be used; mend them"
    else:
        head = (
            f"{file}: {len(refused)} of {rows} rows refused ({len(refused) / rows:.2%}, "
            f"data.max_bad_fraction allows {max_bad_fraction:.2%}); mend them or raise it"
        )
    raise UserError(f"{head}\n{first_of_each_kind(refused)}")


def first_of_each_kind(refused: Iterable[Refusal], limit: int = 3) -> str:
    """Return one line: the first refusals of the most frequent kinds, each with its count."""
    listed = list(refused)
    parts = []
    for kind, count in Counter(item.kind for item in listed).most_common(limit):
        first = next(item for item in listed if item.kind == kind)
        parts.append(f"line {first.line}: {first.reason}" + (f" [{count} rows alike]" if count > 1 else ""))
    return " | ".join(parts)


def with_unique_ids(rows: Sequence[Located[Record]]) -> tuple[list[Located[Record]], int]:
    """Return the rows with an id of their own each, and how many ids had to change: later stages join by id."""
    counts: Counter[str] = Counter()
    changed, result = 0, []
    for row in rows:
        name = row.record.id
        while counts[name]:
            counts[row.record.id] += 1
            name = f"{row.record.id}#{counts[row.record.id]}"
        counts[name] += 1
        changed += name != row.record.id
        result.append(replace(row, record=_changed(row.record, id=name)))
    return result, changed
