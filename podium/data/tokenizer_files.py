"""The JSON files beside a tokenizer: what they may hold, and how an exported one stays readable for older programs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from podium.errors import UserError

CONFIG_FILE = "tokenizer_config.json"
GENERATION_FILE = "generation_config.json"
FILES = (CONFIG_FILE, "special_tokens_map.json", "added_tokens.json", GENERATION_FILE)
# What transformers 5 calls every tokenizer that has tokenizer.json alone; no older one knows the name.
NEW_CLASS = "TokenizersBackend"
OLD_CLASS = "PreTrainedTokenizerFast"
# What it notes about how the tokenizer was loaded, not about the tokenizer.
NOT_OF_THE_TOKENIZER = ("is_local", "local_files_only", "backend")


def read_object(file: Path) -> dict[str, Any]:
    """Read a JSON object; nothing where there is no such file. Raises UserError for anything else in it."""
    if not file.is_file():
        return {}
    try:
        value = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise UserError(f"{file}: not readable as JSON ({reason}); fetch the file again") from None
    if not isinstance(value, dict):
        raise UserError(f"{file}: holds a {type(value).__name__}, not an object; fetch the file again")
    return value


def check_files(folder: Path) -> str | None:
    """Check that the files hold what their names say; return the class that the folder names for its tokenizer.

    Raises UserError for a file that is no JSON object, or a field that cannot be what it is called.
    """
    contents = {name: read_object(folder / name) for name in FILES}
    for name in (CONFIG_FILE, "special_tokens_map.json"):
        for key in ("bos_token", "eos_token", "pad_token", "unk_token"):
            token = contents[name].get(key)
            text = token.get("content") if isinstance(token, Mapping) else token
            if token is not None and (not isinstance(text, str) or not text):
                raise UserError(f"{folder / name}: {key} is {_short(token)}; write the token as a text")
    class_name = contents[CONFIG_FILE].get("tokenizer_class")
    if class_name is not None and not isinstance(class_name, str):
        raise UserError(f"{folder / CONFIG_FILE}: tokenizer_class is {_short(class_name)}; write its name")
    longest = contents[CONFIG_FILE].get("model_max_length")
    if longest is not None and type(longest) not in (int, float):
        raise UserError(f"{folder / CONFIG_FILE}: model_max_length is {_short(longest)}; write a number")
    _check_templates(contents[CONFIG_FILE].get("chat_template"), folder / CONFIG_FILE)
    return class_name


def _check_templates(value: Any, file: Path) -> None:
    if value is None or isinstance(value, str):
        return
    listed = value if isinstance(value, list) else [value]
    for item in listed:
        if not isinstance(item, Mapping) or not all(isinstance(item.get(key), str) for key in ("name", "template")):
            raise UserError(f"{file}: chat_template is {_short(value)}; write a text, or a list of name and template")


def generation_ends(folder: Path, vocab_size: int) -> list[int]:
    """Return the ends that the model's own generation settings name; ids of no token are left out."""
    file = folder / GENERATION_FILE
    ends = read_object(file).get("eos_token_id")
    listed = ends if isinstance(ends, list) else [] if ends is None else [ends]
    if not all(type(end) is int for end in listed):
        raise UserError(f"{file}: eos_token_id is {_short(ends)}; write a token id, or a list of them")
    return [end for end in listed if 0 <= end < vocab_size]


def keep_readable(file: Path, class_name: str | None) -> None:
    """Put the class back that the tokenizer was loaded as, and tokens where every transformers looks for them."""
    content = read_object(file)
    if class_name not in (None, NEW_CLASS):
        content["tokenizer_class"] = class_name
    elif content.get("tokenizer_class") == NEW_CLASS:
        content["tokenizer_class"] = OLD_CLASS
    for name in NOT_OF_THE_TOKENIZER:
        content.pop(name, None)
    # Version 4 takes a list of them under their old name only, version 5 under both.
    if isinstance(content.get("extra_special_tokens"), list):
        content["additional_special_tokens"] = content.pop("extra_special_tokens")
    file.write_text(json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def _short(value: Any) -> str:
    written = json.dumps(value, ensure_ascii=False)
    return written if len(written) <= 40 else written[:37] + "..."
