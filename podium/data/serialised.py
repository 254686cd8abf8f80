"""Read a list of messages that some tool wrote into a text: a cell of a CSV file, a field of a JSON row."""

from __future__ import annotations

import ast
import json
import re
import warnings
from collections.abc import Mapping
from typing import Any

from podium.data.fields import Refused

# A key of a message with a value that is a role; in JSON, or as Python prints it.
MARK = re.compile(
    r"""['"](?:role|from|author)['"]\s*:\s*['"](?:user|human|prompter|assistant|gpt|chatgpt|bot|model|system|developer|tool"""
    r"""|function|observation|function_call)['"]""",
    re.IGNORECASE,
)
BEGINS = re.compile(r"\s*(?:array\()?\s*([\[({])")
WRAPPERS = ("messages", "conversations", "conversation")


def unserialised(value: Any, name: str) -> Any:
    """Return the messages that a text spells out, in JSON or as Python prints them; any other value as it is.

    Raises Refused for a text that begins as such a list and cannot be read as one.
    """
    begins = BEGINS.match(value) if isinstance(value, str) else None
    if begins is None or not MARK.search(value):
        return value
    result = _parsed(value, name, prose=begins[1] == "{" and not value.rstrip().endswith("}"))
    result = list(result) if isinstance(result, tuple) else result
    if _is_message(result) or (isinstance(result, list) and result and all(map(_is_message, result))):
        _check_characters(result, name)
        return result
    if isinstance(result, Mapping) and any(isinstance(result.get(key), list) for key in WRAPPERS):
        raise Refused("serialised", f"{name} is the text of an object with messages; write the list of messages itself")
    if isinstance(result, list) and any(map(_is_message, result)):
        raise Refused("serialised", f"{name} is the text of a list with messages and else; write the list itself")
    return value


def _check_characters(result: Any, name: str) -> None:
    """Refuse half characters, which the text may spell (\\ud83d) and no file can hold."""
    try:
        json.dumps(result, ensure_ascii=False, default=str, skipkeys=True).encode()
    except UnicodeEncodeError:
        raise Refused("serialised", f"{name} spells half of a character (\\ud800 to \\udfff); write it whole") from None
    except RecursionError:
        raise Refused(
            "serialised", f"{name} is the text of messages that are nested too deeply; flatten them"
        ) from None


def _is_message(value: Any) -> bool:
    named = isinstance(value, Mapping) and any(key in value for key in ("role", "from", "author"))
    return named and any(key in value for key in ("content", "value", "tool_calls", "function_call"))


def _parsed(text: str, name: str, *, prose: bool) -> Any:
    """Return what the text spells; one that cannot be read is refused, or comes back if it may be `prose`."""
    try:
        return json.loads(text, object_pairs_hook=_without_repetition)
    except Repeated as error:
        raise Refused("serialised", f"{name} is the text of messages in which a key stands twice: {error}") from None
    except (ValueError, RecursionError):
        pass
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return ast.literal_eval(text.strip())
    # What the parser raises for a text that is no literal, or for one that is nested too deeply.
    except (ValueError, SyntaxError, SyntaxWarning, TypeError, MemoryError, RecursionError):
        if prose:
            return text
        reason = f"{name} is the text of a list of messages and is not JSON; write the list itself"
        raise Refused("serialised", reason) from None


class Repeated(Exception):
    """A key that an object has twice."""


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        keys = [key for key, _ in pairs]
        raise Repeated(next(key for key in keys if keys.count(key) > 1))
    return result
