"""Read the JSON files of a model folder."""

import json
from pathlib import Path
from typing import Any

from podium.errors import UserError


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; raises UserError that names the file when it is absent, unreadable or no object."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; a model folder has {path.name}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: not readable as JSON ({error}); fetch the file again") from None
    if not isinstance(value, dict):
        raise UserError(f"{path}: holds a {type(value).__name__}, not an object; fetch the file again")
    return value
