"""Checks of single fields: text, messages, ranks, choices. Each returns the canonical value or raises Refused."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from podium.data.records import Message, Role

ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "gpt": "assistant",
}
CHOICES = {"0": 0, "1": 1, "a": 0, "b": 1, "tie": None}
TRANSCRIPT_TURN = re.compile(r"(?:\A|\n\n)(Human|Assistant):")


class Refused(ValueError):
    """A row that cannot be used; `kind` groups reasons in the report."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


def text(value: Any, name: str) -> str:
    """Return a text; CRLF becomes LF, the rest stays as it is, except that a text of white space only is refused."""
    if not isinstance(value, str):
        raise Refused("type", f"{name} is {_type(value)}; write a text")
    if not value.strip():
        raise Refused("empty", f"{name} is empty; write a text or leave the row out")
    return value.replace("\r\n", "\n")


def prompt(value: Any, name: str = "prompt") -> list[Message]:
    """Return a conversation that ends with the user's turn, from a text, a transcript or a list of messages."""
    if isinstance(value, str):
        plain = text(value, name)
        turns = transcript(plain, name) if is_transcript(plain) else [Message(role="user", content=plain)]
        if len(turns) > 1 and not turns[-1]["content"]:
            turns = turns[:-1]
    else:
        turns = messages(value, name)
    return asks(turns, name)


def managed_prompt(row: Mapping[str, Any]) -> list[Message]:
    """Return the prompt of a row of the managed pipeline: input_text, or messages after an optional context."""
    if "input_text" in row:
        return prompt(row["input_text"], "input_text")
    if "messages" not in row:
        raise Refused("columns", "neither input_text nor messages; write the prompt as input_text")
    turns = messages(row["messages"], "messages")
    if row.get("context", "") != "":
        turns = [Message(role="system", content=text(row["context"], "context")), *turns]
    return asks(turns, "messages")


def openai_prompt(row: Mapping[str, Any]) -> list[Message]:
    """Return the prompt of a fine-tuning row: the messages of its input."""
    value = row["input"]
    if isinstance(value, str):
        return prompt(value, "input")
    if not isinstance(value, Mapping) or "messages" not in value:
        raise Refused("type", 'input has no messages; write {"messages": [{"role": "user", ...}]}')
    return asks(messages(value["messages"], "input.messages"), "input.messages")


def asks(turns: list[Message], name: str) -> list[Message]:
    """Return the conversation if no turn is empty and the user has the last word."""
    for number, turn in enumerate(turns, start=1):
        if not turn["content"].strip():
            raise Refused("empty", f"message {number} of {name} is empty; write its text or leave the row out")
    if turns[-1]["role"] != "user":
        raise Refused("prompt", f"{name} ends with the {turns[-1]['role']}; it must end with the user's turn")
    return turns


def messages(value: Any, name: str) -> list[Message]:
    """Return a list of messages as role and content, from role/content, author/content or from/value."""
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        raise Refused("type", f"{name} is {_type(value)}; write a text or a list of messages (role, content)")
    if not value:
        raise Refused("empty", f"{name} is an empty list; write at least one message")
    return [_message(item, f"message {number} of {name}") for number, item in enumerate(value, start=1)]


def _message(value: Any, name: str) -> Message:
    if not isinstance(value, Mapping):
        raise Refused("type", f"{name} is {_type(value)}; write an object with role and content")
    role = next((value[key] for key in ("role", "author", "from") if value.get(key) is not None), None)
    known = ROLES.get(role.lower()) if isinstance(role, str) else None
    if known is None:
        raise Refused("role", f"{name} has the role {_short(role)}; write system, user or assistant")
    content = value.get("content", value.get("value"))
    if isinstance(content, Sequence) and not isinstance(content, str | bytes):
        content = "".join(_text_part(part, name) for part in content)
    if not isinstance(content, str):
        raise Refused("type", f"{name} has {_type(content)} as content; write a text")
    return Message(role=known, content=content.replace("\r\n", "\n"))


def _text_part(part: Any, name: str) -> str:
    if isinstance(part, Mapping) and part.get("type") == "text" and isinstance(part.get("text"), str):
        return str(part["text"])
    raise Refused("type", f"{name} has a part that is not text; only text can be used")


def response(value: Any, name: str) -> str:
    """Return the text of one reply, from a text or from a list that holds one assistant message."""
    if isinstance(value, str):
        return text(value, name)
    turns = messages([value] if isinstance(value, Mapping) else value, name)
    if len(turns) != 1 or turns[0]["role"] != "assistant":
        roles = ", ".join(turn["role"] for turn in turns)
        raise Refused("response", f"{name} is a list of {roles}; write one assistant message")
    return text(turns[0]["content"], name)


def is_transcript(value: str) -> bool:
    """Say whether the text begins as a flat Human/Assistant transcript does."""
    return TRANSCRIPT_TURN.match(value) is not None and "\n\nAssistant:" in value


def transcript(value: str, name: str) -> list[Message]:
    """Return the turns of a flat transcript; the white space around a turn belongs to the marker."""
    start, *parts = TRANSCRIPT_TURN.split(value.replace("\r\n", "\n"))
    if start.strip() or not parts:
        raise Refused("transcript", f'{name} is not a transcript; begin it with "\\n\\nHuman: "')
    turns = zip(parts[::2], parts[1::2], strict=True)
    return [Message(role="user" if who == "Human" else "assistant", content=said.strip()) for who, said in turns]


def shared_prefix(first: list[Message], second: list[Message]) -> int:
    """Return how many turns two conversations share from their start."""
    same = 0
    for left, right in zip(first, second, strict=False):
        if left != right:
            break
        same += 1
    return same


def whole_number(value: Any, name: str) -> int:
    """Return an integer; 2.0, "2" and "2.0" count as 2, true does not."""
    if isinstance(value, str) and (digits := re.fullmatch(r"([+-]?[0-9]{1,9})(?:\.0+)?", value.strip())):
        return int(digits[1])
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value // 1:
        raise Refused("type", f"{name} is {_short(value)}; write a whole number")
    return int(value)


def number(value: Any, name: str) -> float:
    """Return a finite number; a text that spells one counts."""
    try:
        result = float("nan") if isinstance(value, bool | bytes) else float(value)
    except (TypeError, ValueError, OverflowError):
        result = float("nan")
    if result - result != 0:
        raise Refused("type", f"{name} is {_short(value)}; write a finite number")
    return result


def whole_numbers(value: Any, name: str) -> list[int]:
    """Return a list of integers."""
    if not isinstance(value, list | tuple):
        raise Refused("type", f"{name} is {_type(value)}; write a list of whole numbers")
    return [whole_number(item, f"{name}[{place}]") for place, item in enumerate(value)]


def weight(value: Any, name: str) -> float:
    """Return how much a comparison counts, which is not less than nothing."""
    result = number(value, name)
    if result < 0:
        raise Refused("type", f"{name} is {_short(value)}; write 0 or more")
    return result


def label(value: Any, name: str) -> str:
    """Return a short text that names something; a number counts as its digits."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise Refused("type", f"{name} is {_type(value)}; write a text")
    return str(value)


def choice(value: Any, name: str = "choice") -> list[int]:
    """Return the ranks of two candidates from 0, 1, a, b or tie."""
    key = str(value).strip().lower().removeprefix("response_").removeprefix("candidate_")
    # A spreadsheet or pandas writes whole numbers as 1.0 where a cell of the column is empty.
    key = re.sub(r"\A([0-9]+)\.0+\Z", r"\1", key)
    if key not in CHOICES:
        raise Refused("choice", f"{name} is {_short(value)}; write 0 for the first candidate, 1 for the second, or tie")
    best = CHOICES[key]
    return [1, 1] if best is None else [1 + (best == 1), 1 + (best == 0)]


def dense_ranks(values: Sequence[int]) -> list[int]:
    """Return the ranks as 1, 2, 3, ... without gaps, in the same order and with the same ties."""
    places = {value: place for place, value in enumerate(sorted(set(values)), start=1)}
    return [places[value] for value in values]


def _type(value: Any) -> str:
    names = {type(None): "missing", bool: "true or false", dict: "an object", list: "a list", str: "a text"}
    return names.get(type(value), "a number" if isinstance(value, int | float) else type(value).__name__)


def _short(value: Any) -> str:
    written = json.dumps(value, ensure_ascii=False, default=str)
    return written if len(written) <= 40 else written[:37] + "..."
