"""Read a row that holds a prompt, in any accepted format, as a canonical record."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from podium.data import conversations, fields
from podium.data.columns import Columns, framed, listed, optional, row_id, unknown_columns
from podium.data.fields import Refused
from podium.data.managed import alpaca_prompt, managed_prompt, openai_prompt
from podium.data.records import Message, PromptRecord
from podium.data.serialised import unserialised

# Columns that answer a prompt. A file of compared responses may serve as a file of prompts; its answers are left out.
ANSWER_COLUMNS = {
    *("responses", "ranks", "completions", "chosen", "rejected", "response_a", "response_b", "choice", "completion"),
    *("response", "output_text", "candidate_0", "candidate_1", "preferred_output", "non_preferred_output"),
    *("shown_order", "margin", "output"),
}


@dataclass(frozen=True)
class PromptFormat:
    """A named format, told by one column; `optional` ones are read too, the rest becomes metadata."""

    name: str
    column: str
    read: Callable[[Columns], list[Message]]
    optional: tuple[str, ...] = ()


def read_prompt(row: Columns, format: str = "auto") -> PromptRecord:
    """Read one row. Raises Refused with the reason; `format` "auto" goes by the columns."""
    present = {name: value for name, value in row.items() if value is not None}
    chosen = _detect(present) if format == "auto" else PROMPT_FORMATS[format]
    if chosen.column not in present:
        raise Refused("columns", f"no column {chosen.column}, which format {format} needs")
    known = {chosen.column, *chosen.optional, *ANSWER_COLUMNS, "id", "source", "metadata"}
    prompt = framed(present, chosen.read(present), known)
    return PromptRecord(
        id=row_id(present, prompt),
        prompt=prompt,
        source=optional(present, "source", fields.label),
        metadata=unknown_columns(present, known),
    )


def _detect(row: Columns) -> PromptFormat:
    for candidate in PROMPT_FORMATS.values():
        if candidate.column in row:
            return candidate
    raise Refused("columns", f"columns {listed(row)} hold no prompt; write prompt (a text or messages) or input_text")


def _conversation(row: Columns) -> list[Message]:
    """Return what chosen and rejected share, or the whole of a transcript but its last reply."""
    value = unserialised(row["chosen"], "chosen")
    turns = (
        conversations.transcript(value, "chosen") if isinstance(value, str) else conversations.messages(value, "chosen")
    )
    return conversations.asks(turns[:-1], "chosen") if len(turns) > 1 else conversations.asks(turns, "chosen")


# In the order in which "auto" tries them.
PROMPT_FORMATS = {
    entry.name: entry
    for entry in (
        PromptFormat("prompt", "prompt", lambda row: conversations.prompt(row["prompt"])),
        PromptFormat("managed", "input_text", managed_prompt, ("messages", "context")),
        PromptFormat("messages", "messages", managed_prompt, ("context",)),
        PromptFormat(
            "sharegpt", "conversations", lambda row: conversations.prompt(row["conversations"], "conversations")
        ),
        PromptFormat("alpaca", "instruction", alpaca_prompt, ("input",)),
        PromptFormat("openai", "input", openai_prompt),
        PromptFormat("question", "question", lambda row: conversations.prompt(row["question"], "question")),
        PromptFormat("context", "context", lambda row: conversations.prompt(row["context"], "context")),
        PromptFormat("text", "text", lambda row: conversations.prompt(row["text"], "text")),
        PromptFormat("conversations", "chosen", _conversation),
    )
}
