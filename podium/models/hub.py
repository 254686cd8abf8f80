"""Find the folder that a model's name means: a path, or a name on the Hugging Face Hub."""

import re
from pathlib import Path

from podium.errors import UserError

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
# Everything but weights of other formats, which may be pickles and are never read.
_PATTERNS = ("*.json", "*.safetensors", "*.jinja", "tokenizer.model", "*.txt")


def find_folder(name: str, revision: str | None) -> Path:
    """Give the local folder of a model, downloading it where `name` is one of the Hub's.

    Raises UserError when there is no such folder, and none can be fetched.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if path.is_file():
        raise UserError(f"{name}: is a file; write a model folder (`podium import-weights` makes one of a .gguf file)")
    if path.is_absolute() or name.startswith((".", "~")) or not _HUB_NAME.fullmatch(name):
        raise UserError(f"{name}: no such model folder; write the path of a folder with config.json and safetensors")
    return _fetch(name, revision)


def _fetch(name: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(_PATTERNS)))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"model {name!r}: no such folder here, and it cannot be fetched from the Hugging Face Hub ({reason}); "
            "write the path of a model folder"
        ) from None
