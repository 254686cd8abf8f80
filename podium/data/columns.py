"""Columns beside a format's own: what belongs to the prompt is read or refused, the rest is kept as metadata."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from podium.data import fields
from podium.data.conversations import MEDIA_KEYS, holds, messages
from podium.data.fields import Refused, short
from podium.data.records import Message, digest
from podium.data.serialised import unserialised

Columns = Mapping[str, Any]
MAX_DEPTH = 32
# Read with every format: the system message, and the turns before the prompt.
SYSTEM_COLUMNS = ("system", "system_prompt", "system_message", "system_instruction")
HISTORY_COLUMN = "history"
READ = (*SYSTEM_COLUMNS, HISTORY_COLUMN)
# What the model would see besides, and no format reads.
TOOL_COLUMNS = ("tools", "functions", "tool_calls", "function_call")
TEMPLATE_COLUMNS = ("documents", "chat_template", "chat_template_kwargs")
TEXT_COLUMNS = ("context", "input", "instruction")
# A row that these mark as false is one that was judged bad, or that is not to be learned.
LEARN_COLUMNS = ("label", "kto_tag", "train", "trainable")


def framed(row: Columns, prompt: list[Message], known: Collection[str]) -> list[Message]:
    """Return the prompt with the system message and the earlier turns that the row's own columns hold.

    `known` are columns that the format has read. Raises Refused for one that belongs to the prompt and cannot be read.
    """
    left = {name: value for name, value in row.items() if name not in known and holds(value)}
    for name in left:
        _refuse_unread(name)
    rest = prompt[1:] if prompt[0]["role"] == "system" else prompt
    system = prompt[: len(prompt) - len(rest)]
    for name in SYSTEM_COLUMNS:
        if name not in left:
            continue
        turn = Message(role="system", content=fields.text(left[name], name))
        if system and system != [turn]:
            raise Refused("columns", f"column {name} and the prompt hold two system messages; keep one")
        system = [turn]
    if HISTORY_COLUMN not in left:
        return [*system, *rest]
    if len(rest) > 1:
        raise Refused("columns", f"column {HISTORY_COLUMN} and the prompt both hold earlier turns; keep one")
    return [*system, *_history(left[HISTORY_COLUMN]), *rest]


def _refuse_unread(name: str) -> None:
    if name in TOOL_COLUMNS:
        raise Refused("tools", f"column {name}: tools are not read; leave the row out, or drop the column")
    if name in MEDIA_KEYS:
        raise Refused("media", f"column {name}: only text can be used; leave the row out, or drop the column")
    if name in TEMPLATE_COLUMNS:
        raise Refused("columns", f"column {name} goes into the prompt and is not read; write its text into the prompt")
    if name in TEXT_COLUMNS:
        raise Refused("columns", f"column {name} is no part of this format; write its text into the prompt, or drop it")


def _history(value: Any) -> list[Message]:
    """Return earlier turns from a list of [asked, answered] or of messages."""
    value = fields.json_list(unserialised(value, HISTORY_COLUMN))
    if isinstance(value, list | tuple) and all(isinstance(item, Mapping) for item in value):
        return messages(value, HISTORY_COLUMN)
    if not isinstance(value, list | tuple) or not all(
        isinstance(item, list | tuple) and len(item) == 2 for item in value
    ):
        raise Refused("type", f"{HISTORY_COLUMN} is {short(value)}; write a list of [user's turn, reply]")
    result = []
    for number, (asked, answered) in enumerate(value, start=1):
        result.append(Message(role="user", content=fields.text(asked, f"user's turn {number} of {HISTORY_COLUMN}")))
        result.append(Message(role="assistant", content=fields.text(answered, f"reply {number} of {HISTORY_COLUMN}")))
    return result


def refuse_unlearned(row: Columns, known: Collection[str]) -> None:
    """Raise Refused where the row says that its answer is a bad one, or not to be learned."""
    for name in LEARN_COLUMNS:
        value = str(row.get(name)).strip().lower()
        # A label may also be the name of a class, or its number.
        if name not in known and (value == "false" or (value in ("0", "0.0") and name != "label")):
            raise Refused(
                name, f"{name} is {value}: an answer that was judged bad is not one to learn; leave the row out"
            )


def row_id(row: Columns, *content: object) -> str:
    """Return the row's own id, or one that depends on its content only."""
    own = row.get("id")
    return str(own) if isinstance(own, str | int) and not isinstance(own, bool) and own != "" else digest(*content)


def unknown_columns(row: Columns, known: Collection[str]) -> dict[str, Any]:
    """Return the columns that no field took, as plain JSON values, with the row's own metadata unfolded."""
    own = row.get("metadata", {})
    kept = {"metadata": own} if not isinstance(own, Mapping) else dict(own)
    kept |= {name: value for name, value in row.items() if name not in known and name not in READ}
    return {str(name): plain(value) for name, value in sorted(kept.items(), key=lambda item: str(item[0]))}


def kept_columns(row: Columns, metadata: Mapping[str, Any]) -> set[str]:
    """Return the columns of a row that its record keeps as metadata and nobody reads."""
    # Of completions, which are read, metadata keeps what each holds besides.
    return {str(name) for name in row} & set(metadata) - {"metadata", "completions"}


def plain(value: Any, depth: int = 0) -> Any:
    """Return the value as JSON has it; dates, bytes, decimals, NaN and the like become text."""
    if depth > MAX_DEPTH:
        raise Refused("unreadable", f"nested more than {MAX_DEPTH} deep; drop or flatten that column")
    if isinstance(value, Mapping):
        return {str(key): plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, depth + 1) for item in value]
    if value is None or isinstance(value, str | int) or (isinstance(value, float) and value - value == 0):
        return value
    return str(value)


def optional(row: Columns, name: str, read: Callable[[Any, str], Any]) -> Any:
    """Return what a column holds; None where it is absent or empty."""
    return read(row[name], name) if row.get(name, "") != "" else None


def listed(row: Columns) -> str:
    """Return the names of the columns, for an error."""
    names = ", ".join(sorted(map(str, row))) or "none"
    return names if len(names) <= 120 else names[:117] + "..."
