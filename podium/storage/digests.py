"""SHA-256 of files and of plain values."""

import hashlib
import json
from pathlib import Path
from typing import Any


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def value_digest(value: Any) -> str:
    """Return the SHA-256 of a value of JSON; the order of keys does not count. Raises ValueError for NaN."""
    text = json.dumps(value, sort_keys=True, default=dict, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
