"""Text in a pipeline parameter: letter by letter what it was, whatever carries it.

KFP replaces `{{$.inputs...}}` wherever it stands in a task's arguments, Argo `{{workflow...}}`, Kubernetes `$(NAME)`
and `$$`. Text with such marks travels as JSON in which neither mark occurs.
"""

import json
from typing import Any

from podium.errors import UserError

_MARK = "json:"
_SPECIAL = ("{{", "$")


def shielded(text: str) -> str:
    """Return a text in a form that no placeholder can be found in; `unshielded` undoes it."""
    if not text.startswith(_MARK) and not any(special in text for special in _SPECIAL):
        return text
    return _MARK + json.dumps(text).replace("{", "\\u007b").replace("$", "\\u0024")


def unshielded(value: Any) -> Any:
    """Return a parameter with every shielded text as it was.

    Raises:
        UserError: A text looks shielded and is not.
    """
    if isinstance(value, dict):
        return {key: unshielded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [unshielded(item) for item in value]
    if not isinstance(value, str) or not value.startswith(_MARK):
        return value
    try:
        text = json.loads(value.removeprefix(_MARK))
    except (ValueError, RecursionError):
        text = None
    if not isinstance(text, str):
        raise UserError(f"parameter config: {value[:60]!r}: behind json: stands a text in JSON; write the plain text")
    return text
