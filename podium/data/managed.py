"""Read prompts that stand in columns of their own: the managed pipeline's, OpenAI's fine-tuning, Alpaca's."""

from __future__ import annotations

from collections.abc import Mapping

from podium.data import conversations, fields
from podium.data.columns import Columns
from podium.data.conversations import asks, holds, messages
from podium.data.fields import Refused
from podium.data.records import Message
from podium.data.serialised import unserialised


def managed_turns(row: Columns) -> list[Message]:
    """Return messages, after what the managed pipeline calls context, which is a system message."""
    turns = messages(row["messages"], "messages")
    if not holds(row.get("context")):
        return turns
    if turns[0]["role"] == "system":
        raise Refused("columns", "context and messages hold two system messages; keep one")
    return [Message(role="system", content=fields.text(row["context"], "context")), *turns]


def managed_prompt(row: Columns) -> list[Message]:
    """Return the prompt of a row of the managed pipeline: input_text, or messages after an optional context."""
    if "input_text" in row:
        for name in ("messages", "context"):
            if holds(row.get(name)):
                raise Refused("columns", f"{name} beside input_text is not read; write its text into input_text")
        return conversations.prompt(row["input_text"], "input_text")
    if "messages" not in row:
        raise Refused("columns", "neither input_text nor messages; write the prompt as input_text")
    return asks(managed_turns(row), "messages")


def openai_prompt(row: Columns) -> list[Message]:
    """Return the prompt of a fine-tuning row: the messages of its input."""
    value = unserialised(row["input"], "input")
    if isinstance(value, str):
        return conversations.prompt(value, "input")
    if not isinstance(value, Mapping) or "messages" not in value:
        raise Refused("type", 'input has no messages; write {"messages": [{"role": "user", ...}]}')
    for name, more in value.items():
        if name not in ("messages", "parallel_tool_calls") and holds(more):
            raise Refused("tools" if name == "tools" else "columns", f"input.{name} is not read; leave the row out")
    return conversations.prompt(value["messages"], "input.messages")


def alpaca_prompt(row: Columns) -> list[Message]:
    """Return an instruction and, below it, what it is about, where that is given."""
    question = fields.text(row["instruction"], "instruction")
    if row.get("input", "") != "":
        question = f"{question}\n\n{fields.text(row['input'], 'input')}"
    return conversations.prompt(question, "instruction")
