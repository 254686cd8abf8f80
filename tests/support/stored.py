"""Safetensors files as types and bytes, by the definition of the format and without a library."""

import json
from pathlib import Path

Stored = dict[str, tuple[str, bytes]]


def read_stored(path: Path) -> Stored:
    """Give type and bytes of every tensor."""
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    header.pop("__metadata__", None)
    places = {name: (entry["dtype"], *entry["data_offsets"]) for name, entry in header.items()}
    return {name: (kind, content[start + begin : start + end]) for name, (kind, begin, end) in places.items()}


def write_stored(path: Path, tensors: Stored, shapes: dict[str, tuple[int, ...]]) -> None:
    """Write tensors of these types and bytes."""
    header, place = {}, 0
    for name, (kind, content) in tensors.items():
        offsets = [place, place := place + len(content)]
        header[name] = {"dtype": kind, "shape": list(shapes[name]), "data_offsets": offsets}
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(content for _, content in tensors.values()))
