"""Checks of prompts and replies, as text, as a transcript or as messages. Each returns the canonical value.

What a message says besides its role and its text is refused where it would change what is asked or learned: a call of a
tool, a picture, reasoning apart from the text, a mark that a reply is not to be learned. `unread_keys` names the rest.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from podium.data import fields
from podium.data.fields import Refused, kind_of, short, text
from podium.data.records import Message, Role
from podium.data.serialised import unserialised

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
    "ai": "assistant",
    "chatgpt": "assistant",
}
TOOL_ROLES = {
    "tool",
    "function",
    "function_call",
    "observation",
    "ipython",
    "tool_call",
    "tool_response",
    "environment",
}
ROLE_KEYS = ("role", "author", "from")
CONTENT_KEYS = ("content", "value")
# Keys of a message that hold more of what is said than its text, and what a refusal calls them.
TOOL_KEYS = ("tool_calls", "tool_call", "function_call", "tool_call_id", "tools", "functions")
REASONING_KEYS = ("reasoning_content", "reasoning", "thinking", "reasoning_details", "thoughts")
MEDIA_KEYS = ("images", "image", "videos", "video", "audios", "audio", "image_url", "attachments", "files")
# Marks of a reply that say whether it is to be learned. In some tools a mask is true for what counts, in others for the
# rest.
LEARN_KEYS = ("train", "training", "trainable", "learn", "loss", "loss_mask")
UNCLEAR_KEYS = ("mask", "masked", "train_detail", "training_detail")
READ_KEYS = {
    *(*CONTENT_KEYS, *TOOL_KEYS, *REASONING_KEYS, *MEDIA_KEYS, *LEARN_KEYS, *UNCLEAR_KEYS),
    *("weight", "refusal", "channel"),
}
FLAGS = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}

TRANSCRIPT_TURN = re.compile(r"(?:\A|\n\n)(Human|Assistant):")
# A conversation as the chat templates of common models write it.
RENDERED = re.compile(
    r"\s*(?:<s>\s*)?(?:(?:<\|im_start\|>|<start_of_turn>)\w+\n|<\|start_header_id\|>\w+<"
    r"|<\|(?:user|system|assistant)\|>\s|\[INST\]\s)"
)


def prompt(value: Any, name: str = "prompt") -> list[Message]:
    """Return a conversation that ends with the user's turn, from a text, a transcript or a list of messages."""
    return asks(turns(value, name), name)


def turns(value: Any, name: str) -> list[Message]:
    """Return the turns of a text, a transcript or a list of messages; an empty last reply of a transcript is none."""
    value = unserialised(value, name)
    if not isinstance(value, str):
        return messages(value, name)
    plain = _prose(value, name)
    result = transcript(plain, name) if is_transcript(plain) else [Message(role="user", content=plain)]
    return result[:-1] if len(result) > 1 and not result[-1]["content"] else result


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
    value = unserialised(value, name)
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        raise Refused("type", f"{name} is {kind_of(value)}; write a text or a list of messages (role, content)")
    if not value:
        raise Refused("empty", f"{name} is an empty list; write at least one message")
    return [_message(item, f"message {number} of {name}") for number, item in enumerate(value, start=1)]


def response(value: Any, name: str) -> str:
    """Return the text of one reply, from a text, an assistant's message or a list that holds one."""
    value = unserialised(value, name)
    if isinstance(value, str):
        plain = _prose(value, name)
        if is_transcript(plain) and plain.lstrip().startswith("Human:"):
            raise Refused("transcript", f"{name} is a whole transcript; write its last reply alone")
        return plain
    listed = [value] if isinstance(value, Mapping) else value
    result = messages(listed, name)
    if len(result) != 1 or result[0]["role"] != "assistant":
        roles = ", ".join(turn["role"] for turn in result)
        raise Refused("response", f"{name} is a list of {roles}; write one assistant message")
    refuse_unlearned(listed, name)
    return text(result[0]["content"], name)


def refuse_unlearned(value: Any, name: str) -> None:
    """Raise Refused where the last of a list of messages is marked as one not to learn, or one may not tell."""
    last = unserialised(value, name)[-1]
    if isinstance(last, Mapping):
        _refuse_marked(last, f"the reply in {name}")


def _prose(value: str, name: str) -> str:
    plain = text(value, name)
    if rendered := RENDERED.match(plain):
        mark = rendered[0].strip()
        raise Refused("transcript", f"{name} begins as a chat template writes it ({mark}); write a list of messages")
    return plain


def _message(value: Any, name: str) -> Message:
    if not isinstance(value, Mapping):
        raise Refused("type", f"{name} is {kind_of(value)}; write an object with role and content")
    role = next((value[key] for key in ROLE_KEYS if value.get(key) is not None), None)
    lowered = role.strip().lower() if isinstance(role, str) else ""
    _refuse_unread(value, lowered, name)
    if lowered not in ROLES:
        raise Refused("role", f"{name} has the role {short(role)}; write system, user or assistant")
    return Message(role=ROLES[lowered], content=_content(value, name))


def _content(value: Mapping[str, Any], name: str) -> str:
    result = [value[key] for key in CONTENT_KEYS if value.get(key) is not None]
    if len(result) > 1 and result[0] != result[1]:
        raise Refused("type", f"{name} has both content and value; keep one")
    content = result[0] if result else None
    if isinstance(content, Sequence) and not isinstance(content, str | bytes):
        content = "".join(_text_part(part, name) for part in content)
    if not isinstance(content, str):
        raise Refused("type", f"{name} has {kind_of(content)} as content; write a text")
    return content.replace("\r\n", "\n")


def _text_part(part: Any, name: str) -> str:
    if isinstance(part, Mapping) and part.get("type") == "text" and isinstance(part.get("text"), str):
        return str(part["text"])
    raise Refused("type", f"{name} has a part that is not text; only text can be used")


def holds(value: Any) -> bool:
    """Say whether a column or key holds anything; in a cell of a table, null and an empty list are texts."""
    if isinstance(value, str):
        return value.strip().lower() not in ("", "[]", "{}", "null", "none", "nan", "false")
    return value is not None and value is not False and not (isinstance(value, Sequence | Mapping) and not value)


def _refuse_unread(value: Mapping[str, Any], role: str, name: str) -> None:
    """Raise Refused for what a message says besides its text."""
    if role in TOOL_ROLES:
        raise Refused("tools", f"{name} is of a tool (role {role}); calls of tools are not read, leave the row out")
    for key in TOOL_KEYS:
        if holds(value.get(key)):
            raise Refused("tools", f"{name} has {key}; calls of tools are not read, leave the row out")
    for key in REASONING_KEYS:
        if holds(value.get(key)):
            raise Refused(
                "reasoning", f"{name} has {key}, which is not read; write it into the content, or take the key out"
            )
    for key in MEDIA_KEYS:
        if holds(value.get(key)):
            raise Refused("media", f"{name} has {key}; only text can be used, leave the row out")
    if holds(value.get("refusal")):
        raise Refused("type", f"{name} has a refusal beside its content; write that text as the content")
    if value.get("channel") not in (None, "", "final"):
        raise Refused("reasoning", f"{name} is of channel {short(value['channel'])}; write the final answer alone")


def _refuse_marked(value: Mapping[str, Any], name: str) -> None:
    for key in UNCLEAR_KEYS:
        if value.get(key) is not None:
            reason = f"{name} has {key}, which tools read in opposite ways; write weight 1 to learn it, 0 not to"
            raise Refused("unlearned", reason)
    for key in LEARN_KEYS:
        if value.get(key) is not None and not flag(value[key], f"{key} of {name}"):
            raise Refused("unlearned", f"{name} has {key} {short(value[key])}: not to be learned; leave the row out")
    if value.get("weight") is None:
        return
    weight = fields.weight(value["weight"], f"weight of {name}")
    if weight == 0:
        raise Refused("unlearned", f"{name} has weight 0: not to be learned; end the row before it, or leave it out")
    if weight != 1:
        raise Refused("unlearned", f"{name} has weight {weight:g}; write it as the weight of the row, beside messages")


def flag(value: Any, name: str) -> bool:
    """Return true or false, also from 0, 1 and from a text that spells one."""
    key = str(value).strip().lower()
    if not isinstance(value, bool | int | float | str) or key not in FLAGS:
        raise Refused("type", f"{name} is {short(value)}; write true or false")
    return FLAGS[key]


def unread_keys(value: Any, depth: int = 4) -> set[str]:
    """Return the keys of messages, in a list or some levels below, that are neither read nor refused."""
    try:
        value = unserialised(value, "value")
    except Refused:
        # In a column that this kind of record does not read.
        return set()
    if isinstance(value, list | tuple) and depth:
        return {key for item in value for key in unread_keys(item, depth - 1)}
    if not isinstance(value, Mapping) or not depth:
        return set()
    role = next((key for key in ROLE_KEYS if value.get(key) is not None), None)
    if role is None or not any(key in value for key in CONTENT_KEYS):
        return {key for item in value.values() for key in unread_keys(item, depth - 1)}
    return {str(key) for key in value if key not in READ_KEYS and key != role and holds(value[key])}


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
