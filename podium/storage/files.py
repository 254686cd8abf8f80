"""Write single files so that a kill leaves the old one or the new one."""

from pathlib import Path


def write_text(path: Path, text: str) -> None:
    """Write a file so that a reader sees all of it or nothing."""
    scratch = path.with_name(f"{path.name}.tmp")
    scratch.write_text(text, encoding="utf-8")
    scratch.replace(path)
