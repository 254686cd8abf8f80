"""Read a configuration: file, then overrides, then other tools' names, then paths, then the strict models.

What was read once is resolved. Whoever reads it again, a stage for one, takes it as it is: what is guessed for a user's
file (other tools' names, implied values, paths from a folder) would change it.
"""

import copy
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from podium.config.aliases import convert, rename, renamed
from podium.config.carrying import unshielded
from podium.config.data import FILE_FIELDS
from podium.config.document import (
    LONGEST,
    Document,
    Keys,
    Place,
    describe,
    dotted,
    ends_early,
    first_unfit,
    parse,
    parse_value,
    parse_word,
)
from podium.config.explain import as_written, explain, first_lines
from podium.config.managed import apply_managed, is_managed
from podium.config.places import holds_secret
from podium.config.presence import absent, unchecked, unknown_accelerators
from podium.config.root import PodiumConfig
from podium.errors import UserError, exists, expanded, file_error

# Where models are named.
_MODELS: tuple[Keys, ...] = (("model",), ("reward", "model"))


# What is looked for on this machine: nothing, what a run here needs where the target is local, or that in any case.
LookFor = Literal["nothing", "target", "here"]


def load_config(
    path: str | os.PathLike[str],
    overrides: Sequence[str] = (),
    notices: list[str] | None = None,
    *,
    look_for: LookFor = "nothing",
) -> PodiumConfig:
    """Read a YAML or JSON file, apply KEY=VALUE overrides, and check everything.

    Relative paths in the file start from the file's folder, those in overrides from the current one; the result holds
    absolute paths. Every name that was read as another one is added to `notices`. With `look_for`, files, model folders
    and accelerators that are not there are mistakes; of what cannot be looked for there is a notice.

    Raises:
        UserError: Whatever is wrong, a line for each mistake with file, line, key and what to write instead.
    """
    file = Path(path)
    return load_config_text(
        _read(file),
        source=str(path),
        folder=file.absolute().parent,
        overrides=overrides,
        notices=notices,
        look_for=look_for,
    )


def load_config_text(
    text: str,
    *,
    source: str = "configuration",
    folder: Path | None = None,
    overrides: Sequence[str] = (),
    notices: list[str] | None = None,
    look_for: LookFor = "nothing",
) -> PodiumConfig:
    """Check a configuration given as YAML or JSON text; `source` is what errors call it. Otherwise like load_config."""
    document = parse(text, source, folder or Path.cwd())
    config = _interpret(document, overrides, notices)
    if look_for != "nothing":
        here = look_for == "here" or config.platform.target == "local"
        missing = absent(config, runs=look_for == "here") if here else ()
        _refuse([*unknown_accelerators(config), *missing], document)
        if notices is not None and look_for == "target":
            notices.extend(unchecked(config))
    return config


def load_config_data(
    data: Mapping[str, Any], *, source: str, notices: list[str] | None = None, resolved: bool = False
) -> PodiumConfig:
    """Check a configuration that is already a mapping.

    `resolved`: it is what a PodiumConfig or stage_config wrote out, such as a pipeline parameter, and is taken as it
    is: no name of another tool, no managed parameter, no implied value, no path from the current folder.
    """
    _refuse_unfit(Document(dict(data), Place(source, Path.cwd())))
    if resolved:
        return _validated(Document(unshielded(dict(data)), Place(source, Path.cwd())))
    return _interpret(Document(copy.deepcopy(dict(data)), Place(source, Path.cwd())), (), notices)


def _refuse_unfit(document: Document) -> None:
    """Raise UserError for a shape or a text that no configuration has."""
    if (unfit := first_unfit(document.data)) is not None:
        keys, reason = unfit
        raise UserError(f"{document.place(keys).where}: {dotted(keys) or 'configuration'}: {reason}")


def _interpret(document: Document, overrides: Sequence[str], notices: list[str] | None) -> PodiumConfig:
    """Read what a user wrote as it is meant, and check it."""
    said = rename(document)
    for override in overrides:
        said += _override(document, override)
    _refuse_unfit(document)
    if is_managed(document.data):
        said += apply_managed(document)
    said += _imply(document)
    _resolve_paths(document)
    if notices is not None:
        notices.extend(said)
    return _validated(document)


def _refuse(mistakes: Sequence[tuple[Keys, str]], document: Document) -> None:
    """Raise UserError with a line for each of the first mistakes, each a key and a reason."""
    if mistakes:
        result = [(as_written(keys, document), reason) for keys, reason in mistakes]
        raise UserError(
            first_lines([f"{document.place(keys).where}: {dotted(keys)}: {reason}" for keys, reason in result])
        )


def _validated(document: Document) -> PodiumConfig:
    try:
        return PodiumConfig.model_validate(document.data)
    except ValidationError as error:
        raise UserError(explain(error, document)) from error


def _read(file: Path) -> str:
    """Return the text of a file, or say why there is none."""
    try:
        # A configuration is small; what never ends, such as a device, is refused by its length.
        with file.open("rb") as stream:
            content = stream.read(LONGEST + 1)
        if len(content) > LONGEST:
            raise UserError(f"{file}: is longer than {LONGEST:,} bytes; name the YAML file of the run")
        return content.decode("utf-8-sig")
    except FileNotFoundError as error:
        raise UserError(f"{file}: no such file; name the YAML file of the run") from error
    except IsADirectoryError as error:
        raise UserError(f"{file}: is a folder; name the YAML file in it") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: is not UTF-8 text (byte {error.start}); save it as UTF-8") from error
    except OSError as error:
        raise file_error(error) or UserError(f"{file}: cannot be read: {error.strerror}") from error


def _override(document: Document, text: str) -> list[str]:
    """Put the value of one KEY=VALUE into the document; return the notices."""
    name, equals, raw = text.partition("=")
    shown = f"{name}=..." if holds_secret(raw) else text
    where = f"override {shown!r}" if len(shown) <= 80 else f"override {shown[:77] + '...'!r}"
    keys = tuple(name.strip().split("."))
    if not equals or not all(keys):
        raise UserError(f"{where}: write KEY=VALUE, such as ppo.kl_coef=0.05")
    value = _value(raw.strip(), where)
    new = renamed(keys)
    path = _put(document.data, new, convert(keys[-1], value), where)
    document.forget(path)
    # The sections that were made on the way are the override's too.
    for end in range(1, len(path) + 1):
        document.places.setdefault(path[:end], Place(where, Path.cwd(), raw.strip() if end == len(path) else ""))
    return ([] if new == keys else [f"{where}: {dotted(keys)} is read as {dotted(new)}"]) + rename(document)


def _value(raw: str, where: str) -> Any:
    """Read the value of an override: a list, a mapping or a quoted text as YAML, all else as it stands."""
    if not raw.startswith(("[", "{", '"', "'")):
        return parse_word(raw, where)
    value, _ = parse_value(raw, where)
    if ends_early(raw):
        raise UserError(f"{where}: YAML reads what follows the # as a comment; put the whole value in quotes")
    return value


def _put(data: dict[str, Any], keys: Keys, value: Any, where: str) -> Keys:
    """Set a value deep in the data, making sections on the way; return the path with list indices as numbers."""
    node: Any = data
    path: Keys = ()
    for position, name in enumerate(keys, 1):
        key = _key_in(node, name, path, where)
        path = (*path, key)
        if position == len(keys):
            node[key] = value
        elif isinstance(node, dict) and node.get(key) is None:
            node[key] = {}
        node = node[key]
    return path


def _key_in(node: Any, name: str | int, path: Keys, where: str) -> str | int:
    """Return `name` as a key of a mapping or an index of a list."""
    if isinstance(node, dict):
        return name
    if not isinstance(node, list):
        raise UserError(f"{where}: {dotted(path)} is {describe(node)} and has no {name!r} in it")
    if not str(name).isdecimal() or int(name) >= len(node):
        raise UserError(f"{where}: {dotted(path)} is a list of {len(node)}; write an index from 0 in place of {name!r}")
    return int(name)


def _imply(document: Document) -> list[str]:
    """Read a penalty alone as TRL does: there it is always subtracted."""
    ppo = document.data.get("ppo")
    if isinstance(ppo, dict) and ppo.get("missing_eos_penalty") is not None and "missing_eos" not in ppo:
        ppo["missing_eos"] = "subtract"
        where = document.place(("ppo", "missing_eos_penalty")).where
        return [f"{where}: ppo.missing_eos_penalty without ppo.missing_eos is read as missing_eos: subtract"]
    return []


def _resolve_paths(document: Document) -> None:
    """Make local paths absolute, each from the folder of whatever named it."""
    data = document.data.get("data")
    if isinstance(data, dict):
        for name in data.keys() & set(FILE_FIELDS):
            data[name] = _absolute_sources(document, ("data", name), data[name])
    for keys in _MODELS:
        _resolve_model(document, keys)
    platform = document.data.get("platform")
    cache = platform.get("compilation_cache") if isinstance(platform, dict) else None
    if isinstance(platform, dict) and isinstance(cache, str) and cache not in ("auto", "none"):
        platform["compilation_cache"] = _absolute(document, ("platform", "compilation_cache"), cache)


def _resolve_model(document: Document, keys: Keys) -> None:
    """Make the name of the model at `keys` an absolute path where it is one."""
    model: Any = document.data
    for key in keys:
        model = model.get(key) if isinstance(model, dict) else None
    if isinstance(model, dict) and isinstance(model.get("name_or_path"), str):
        name = model["name_or_path"]
        resolved = _absolute(document, (*keys, "name_or_path"), name)
        if name.startswith((".", "/", "~", "file:///")) or (name and "://" not in name and exists(resolved)):
            model["name_or_path"] = resolved


def _absolute_sources(document: Document, keys: Keys, value: Any) -> Any:
    """Return a path, a mapping with a path, or a list of them, with the paths absolute."""
    if isinstance(value, str):
        return _absolute(document, keys, value)
    if isinstance(value, list):
        return [_absolute_sources(document, (*keys, index), item) for index, item in enumerate(value)]
    if isinstance(value, dict) and isinstance(value.get("path"), str):
        return {**value, "path": _absolute(document, (*keys, "path"), value["path"])}
    return value


def _absolute(document: Document, keys: Keys, path: str) -> str:
    """Return a local path as absolute; an error says where the path was written."""
    place = document.place(keys)
    try:
        return absolute(path, place.folder)
    except UserError as error:
        raise UserError(f"{place.where}: {dotted(keys)}: {error}") from error


def absolute(path: str, folder: Path) -> str:
    """Return a local path as absolute, seen from `folder`, without file://; a URI, or nothing, stays as it is.

    Raises:
        UserError: It starts with ~ and there is no such home folder.
    """
    if path.startswith("file:///"):
        return os.path.normpath(path.removeprefix("file://"))
    if "://" in path or not path:
        return path
    return os.path.normpath(folder / expanded(path))
