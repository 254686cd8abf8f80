"""What a model folder is, by the contents of the files that loading reads: the same wherever the folder lies."""

import contextlib
import hashlib
import json
import struct
from pathlib import Path

from podium.errors import UserError
from podium.models.weights.files import INDEX, SINGLE, pieces, read_header

# What config and tokenizer are read from.
DESCRIBING = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "tokenizer.model",
    "spiece.model",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
)
_TEMPLATES = "additional_chat_templates/*.jinja"
_PODIUM = ("podium_model.json", "adapter_config.json")
_WEIGHTS = (SINGLE, INDEX, "head.safetensors", "adapter_model.safetensors")
_WHOLE = 1 << 20  # bytes of a file that are hashed whole


def model_digest(folder: Path, *, weights: bool = True) -> str:
    """Return what changes when a model folder does, wherever it lies: the SHA-256 of what loading reads of it.

    README, caches and version control do not count, nor the weights where only the tokenizer is wanted. Of large
    weight files every tensor is looked at in up to 16 places, as in the digest that an adapter keeps of its base.
    """
    names = {*DESCRIBING, *_PODIUM, *(_WEIGHTS if weights else ())}
    paths = [folder / name for name in sorted(names)] + sorted(folder.glob(_TEMPLATES))
    if weights:
        paths += sorted({folder / name for name in _shards(folder)} - set(paths))
    entries = {path.relative_to(folder).as_posix(): _mark(path) for path in paths if path.is_file()}
    return hashlib.sha256(json.dumps(entries, sort_keys=True).encode()).hexdigest()


def _shards(folder: Path) -> list[str]:
    """Return the files that the index lists; what is wrong with it, loading says."""
    try:
        listed = json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"]
        return sorted({name for name in listed.values() if Path(name).name == name})
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return []


def _mark(path: Path) -> str:
    """Hash a file, or of a large one of weights its header and pieces of every tensor."""
    header = None
    if path.suffix == ".safetensors" and path.stat().st_size > _WHOLE:
        # What is damaged, loading will say.
        with contextlib.suppress(UserError):
            header = read_header(path)
    with path.open("rb") as file:
        if header is None:
            return hashlib.file_digest(file, "sha256").hexdigest()
        digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
        start = 8 + struct.unpack("<Q", file.read(8))[0]
        for name in sorted(header):
            begin, end = header[name]["data_offsets"]
            for offset, length in pieces(end - begin):
                file.seek(start + begin + offset)
                digest.update(file.read(length))
        return digest.hexdigest()
