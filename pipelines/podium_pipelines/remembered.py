"""The service of the last `podium submit`, for the commands that follow a run: a file of this user, no secret in it."""

import json
import os
from pathlib import Path
from typing import Any

from podium.config import PlatformConfig
from podium.errors import UserError, expanded
from podium.storage.files import write_text

_LAST = "last"


def remember(platform: PlatformConfig, target: str) -> None:
    """Note where a target's service is. A configuration holds no secret, and so does the file.

    Raises:
        OSError: The file cannot be written.
        UserError: This user has no home folder.
    """
    path = _path()
    known = _read(path) | {_LAST: target, target: platform.model_dump(mode="json")[target]}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(known, indent=1) + "\n")


def recall(target: str | None = None) -> tuple[PlatformConfig, str] | None:
    """Return where a target's service is, or else the last one, and which target that is; None where none is known.

    Raises:
        UserError: What is noted cannot be read.
    """
    path = _path()
    known = _read(path)
    chosen = target or known.get(_LAST)
    if chosen not in known:
        return None
    try:
        return PlatformConfig.model_validate({"target": chosen, chosen: known[chosen]}), chosen
    except ValueError as error:
        raise UserError(f"{path} does not fit this version of podium; remove it, or write --config CONFIG") from error


def _path() -> Path:
    """Return the file, where the XDG base directories have it; a relative one is to be passed over."""
    home = os.environ.get("XDG_STATE_HOME", "")
    folder = Path(home) if Path(home).is_absolute() else expanded("~/.local/state")
    return folder / "podium" / "services.json"


def _read(path: Path) -> dict[str, Any]:
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}); remove it, or write --config CONFIG") from error
    return result if isinstance(result, dict) else {}
