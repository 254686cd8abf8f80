"""Read a row that holds a prompt and the response to learn, in any accepted format, as a canonical record."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from podium.data import conversations, fields
from podium.data.columns import Columns, framed, listed, optional, refuse_unlearned, row_id, unknown_columns
from podium.data.fields import Refused
from podium.data.managed import alpaca_prompt, managed_turns
from podium.data.records import DemonstrationRecord, Message

# What a row holds: a prompt and a response.
Shown = tuple[list[Message], str]


@dataclass(frozen=True)
class DemonstrationFormat:
    """A named format: all of `columns` must be there, `optional` ones are read too, the rest becomes metadata."""

    name: str
    columns: tuple[str, ...]
    read: Callable[[Columns], Shown]
    optional: tuple[str, ...] = ()


def read_demonstration(row: Columns, format: str = "auto") -> DemonstrationRecord:
    """Read one row. Raises Refused with the reason; `format` "auto" goes by the columns."""
    present = {name: value for name, value in row.items() if value is not None}
    chosen = _detect(present) if format == "auto" else _named(format, present)
    known = {*chosen.columns, *chosen.optional, "id", "source", "weight", "metadata"}
    refuse_unlearned(present, known)
    asked, response = chosen.read(present)
    prompt = framed(present, asked, known)
    return DemonstrationRecord(
        id=row_id(present, prompt, response),
        prompt=prompt,
        response=response,
        source=optional(present, "source", fields.label),
        weight=optional(present, "weight", fields.weight),
        metadata=unknown_columns(present, known),
    )


def _detect(row: Columns) -> DemonstrationFormat:
    for candidate in DEMONSTRATION_FORMATS.values():
        if all(name in row for name in candidate.columns):
            return candidate
    raise Refused(
        "columns",
        f"columns {listed(row)} fit no format of demonstrations; write prompt and response, or messages that end with "
        "the assistant's",
    )


def _named(format: str, row: Columns) -> DemonstrationFormat:
    chosen = DEMONSTRATION_FORMATS[format]
    for name in chosen.columns:
        if name not in row:
            raise Refused("columns", f"no column {name}, which format {format} needs")
    return chosen


def _pair(prompt: str, response: str) -> Callable[[Columns], Shown]:
    """Read a prompt and a response from these columns: texts, or lists of messages."""
    return lambda row: (conversations.prompt(row[prompt], prompt), conversations.response(row[response], response))


def _alpaca(row: Columns) -> Shown:
    return alpaca_prompt(row), conversations.response(row["output"], "output")


def _messages(row: Columns) -> Shown:
    return _conversation(managed_turns(row), row, "messages")


def _sharegpt(row: Columns) -> Shown:
    return _conversation(conversations.messages(row["conversations"], "conversations"), row, "conversations")


def _conversation(turns: list[Message], row: Columns, name: str) -> Shown:
    """Cut a conversation before its last turn, the response; earlier replies belong to the prompt."""
    if turns[-1]["role"] != "assistant":
        raise Refused(
            "response",
            f"{name} ends with the {turns[-1]['role']}; the last one, which is learned, must be a reply",
        )
    if len(turns) == 1:
        raise Refused("prompt", f"{name} is one reply without a prompt; write what it answers before it")
    conversations.refuse_unlearned(row[name], name)
    prompt = conversations.asks(turns[:-1], f"{name} before the last reply")
    return prompt, fields.text(turns[-1]["content"], "the last reply")


# In the order in which "auto" tries them.
DEMONSTRATION_FORMATS = {
    entry.name: entry
    for entry in (
        DemonstrationFormat("canonical", ("prompt", "response"), _pair("prompt", "response")),
        DemonstrationFormat("completion", ("prompt", "completion"), _pair("prompt", "completion")),
        DemonstrationFormat("managed", ("input_text", "output_text"), _pair("input_text", "output_text")),
        DemonstrationFormat("alpaca", ("instruction", "output"), _alpaca, ("input",)),
        DemonstrationFormat("messages", ("messages",), _messages, ("context",)),
        DemonstrationFormat("sharegpt", ("conversations",), _sharegpt),
    )
}
