"""Read a row that holds a prompt, in any accepted format, as a canonical record."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from podium.data import fields
from podium.data.fields import Refused
from podium.data.formats import Columns, row_id, unknown_columns
from podium.data.records import Message, PromptRecord

# Columns that answer a prompt. A file of compared responses may serve as a file of prompts; its answers are left out.
ANSWER_COLUMNS = {
    *("responses", "ranks", "completions", "chosen", "rejected", "response_a", "response_b", "choice", "completion"),
    *("response", "output_text", "candidate_0", "candidate_1", "preferred_output", "non_preferred_output"),
    *("shown_order", "margin"),
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
    prompt = chosen.read(present)
    known = {chosen.column, *chosen.optional, *ANSWER_COLUMNS, "id", "source", "metadata"}
    return PromptRecord(
        id=row_id(present, prompt),
        prompt=prompt,
        source=fields.label(present["source"], "source") if present.get("source", "") != "" else None,
        metadata=unknown_columns(present, known),
    )


def _detect(row: Columns) -> PromptFormat:
    for candidate in PROMPT_FORMATS.values():
        if candidate.column in row:
            return candidate
    names = ", ".join(sorted(map(str, row)))[:120] or "none"
    raise Refused("columns", f"columns {names} hold no prompt; write prompt (a text or messages) or input_text")


def _conversation(row: Columns) -> list[Message]:
    """Return what chosen and rejected share, or the whole of a transcript but its last reply."""
    value = row["chosen"]
    turns = fields.transcript(value, "chosen") if isinstance(value, str) else fields.messages(value, "chosen")
    return fields.asks(turns[:-1], "chosen") if len(turns) > 1 else fields.asks(turns, "chosen")


# In the order in which "auto" tries them.
PROMPT_FORMATS = {
    entry.name: entry
    for entry in (
        PromptFormat("prompt", "prompt", lambda row: fields.prompt(row["prompt"])),
        PromptFormat("managed", "input_text", fields.managed_prompt),
        PromptFormat("messages", "messages", fields.managed_prompt, ("context",)),
        PromptFormat("openai", "input", fields.openai_prompt),
        PromptFormat("context", "context", lambda row: fields.prompt(row["context"], "context")),
        PromptFormat("text", "text", lambda row: fields.prompt(row["text"], "text")),
        PromptFormat("conversations", "chosen", _conversation),
    )
}
