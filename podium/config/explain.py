"""Turn pydantic's complaints into one line each: where, which key, what to write instead."""

import difflib
from collections.abc import Iterable, Iterator
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from podium.config.aliases import RENAMED
from podium.config.document import Document, Keys, describe, dotted
from podium.config.foreign import foreign
from podium.config.root import PodiumConfig

_SHOWN = 5
_LATER = {
    "rate": "rating candidates comes with a later version; leave the section out",
}
_WANTED = {
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing_size": "a smaller whole number",
    "float_parsing": "a number",
    "float_type": "a number",
    "bool_as_number": "a number",
    "finite_number": "a finite number",
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "string_type": "text, in quotes where it looks like something else",
    "string_too_short": "a text that is not empty",
    "model_type": "a mapping of keys",
    "model_attributes_type": "a mapping of keys",
    "dict_type": "a mapping of keys",
    "tuple_type": "a list",
}
_BOUNDS = {
    "greater_than": ("gt", "more than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
}


def explain(error: ValidationError, document: Document) -> str:
    """Return the first few mistakes, a line each, in the order of the file."""
    details = error.errors(include_url=False)
    unknown = [_keys(detail, document) for detail in details if detail["type"] == "extra_forbidden"]
    meant = {hint_key(keys) for keys in unknown if foreign(str(keys[-1])) is None}
    # A misspelt key is also a missing one: one line is enough.
    details = [detail for detail in details if detail["type"] != "missing" or _keys(detail, document) not in meant]
    lines = list(dict.fromkeys(_line(detail, document) for detail in details))
    return first_lines(lines)


def first_lines(lines: list[str]) -> str:
    """Return the first few of many lines, and how many there are beside them."""
    rest = len(lines) - _SHOWN
    return "\n".join(lines[:_SHOWN] + ([f"and {rest} more"] if rest > 0 else []))


def _line(detail: ErrorDetails, document: Document) -> str:
    keys = _keys(detail, document)
    place = document.place(keys)
    given = describe(detail["input"])
    # yes, off and ~ are true, false and null to YAML; the reader looks for the word.
    if (detail["input"] is None or isinstance(detail["input"], bool)) and keys in document.places:
        given = place.written or given
    return f"{place.where}: {dotted(keys) or 'configuration'}: {_reason(detail, keys, given)}"


def _keys(detail: ErrorDetails, document: Document) -> Keys:
    """Return the path of the offending value as the user wrote it; a check across fields names its field beside it."""
    keys = as_written(detail["loc"], document)
    field = detail.get("ctx", {}).get("field")
    return (*keys, *field.split(".")) if field else keys


def as_written(path: Keys, document: Document) -> Keys:
    """Return the path of a value in the configuration as the path of what the user wrote.

    A single item that stands for a list of one has no index, and a path that stands for a mapping no key `path`.
    """
    keys: Keys = ()
    node: Any = document.data
    for key in path:
        if key == "[key]" or isinstance(node, str) or (isinstance(key, int) and not isinstance(node, list)):
            continue
        keys = (*keys, key)
        is_item = isinstance(node, list) and isinstance(key, int)
        node = node[key] if is_item else node.get(key) if isinstance(node, dict) else None
    return keys


def _reason(detail: ErrorDetails, keys: Keys, given: str) -> str:
    kind, value, context = detail["type"], detail["input"], detail.get("ctx", {})
    if kind == "podium":
        return str(context["reason"])
    if kind == "extra_forbidden":
        return foreign(str(keys[-1])) or f"unknown key; {hint(keys)}"
    if kind == "missing":
        needed = "model: {name_or_path: ...}" if keys == ("model",) else f"{keys[-1]}: ..."
        return f"is missing; write {needed}"
    if kind == "literal_error":
        choices = _choices(str(context["expected"]))
        close = _close(str(value), choices)
        wanted = ", ".join(choices)
        return f"write one of {wanted}; not {given}" + (f"; did you mean '{close}'?" if close else "")
    if kind in _BOUNDS:
        name, words = _BOUNDS[kind]
        return f"write a number {words} {context[name]:g}, not {given}"
    if kind in _WANTED:
        return f"write {_WANTED[kind]}, not {given}"
    return f"{detail['msg'][0].lower()}{detail['msg'][1:]}, not {given}"


def _choices(expected: str) -> list[str]:
    """Read the choices out of pydantic's sentence: 'a', 'b' or 'c'."""
    return [part.strip().strip("'") for part in expected.replace(" or ", ", ").split(",")]


def hint(keys: Keys) -> str:
    """Say what to write instead of an unknown key."""
    key = str(keys[-1])
    if keys[:-1] == () and key in _LATER:
        return _LATER[key]
    if (meant := hint_key(keys)) is not None:
        return f"did you mean '{meant[-1]}'?"
    if elsewhere := sorted(_elsewhere(key)):
        return f"did you mean {' or '.join(repr(path) for path in elsewhere[:3])}?"
    return "known keys here: " + ", ".join(_names(keys[:-1]))


def hint_key(keys: Keys) -> Keys | None:
    """Return the known key nearest to an unknown one in the same section, if any is near."""
    close = _close(str(keys[-1]), _names(keys[:-1]))
    return (*keys[:-1], close) if close else None


def _names(keys: Keys) -> list[str]:
    model = model_at(keys)
    return list(model.model_fields) if model else []


def _close(word: str, choices: Iterable[str]) -> str | None:
    """Return the choice nearest to `word`, if any is near."""
    plain = {choice.lower().replace("-", "_"): choice for choice in choices}
    result = difflib.get_close_matches(word.lower().replace("-", "_"), plain, n=1, cutoff=0.6)
    return plain[result[0]] if result else None


def _elsewhere(key: str) -> set[str]:
    """Return the paths where a field or an accepted other name `key` lives."""
    own = {path for path in paths() if path.rpartition(".")[2] == key}
    return own or {new for old, new in RENAMED.items() if old.rpartition(".")[2] == key}


def paths() -> Iterator[str]:
    """Yield the dotted path of every field below the top."""
    pending: list[tuple[str, type[BaseModel]]] = [("", PodiumConfig)]
    while pending:
        prefix, model = pending.pop(0)
        for name, info in model.model_fields.items():
            yield prefix + name
            inner = section_of(info.annotation)
            if inner is not None and not _is_table(info.annotation):
                pending.append((f"{prefix}{name}.", inner))


def model_at(keys: Keys) -> type[BaseModel] | None:
    """Return the section that lies at `keys`, list items and table entries included."""
    model: type[BaseModel] | None = PodiumConfig
    inside_table = False
    for key in keys:
        if isinstance(key, int) or inside_table:
            inside_table = False
            continue
        if model is None or key not in model.model_fields:
            return None
        annotation = model.model_fields[key].annotation
        model, inside_table = section_of(annotation), _is_table(annotation)
    return model


def section_of(annotation: Any) -> type[BaseModel] | None:
    """Return the section inside an annotation such as `tuple[Source, ...] | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((result for arg in get_args(annotation) if (result := section_of(arg))), None)


def _is_table(annotation: Any) -> bool:
    """Tell whether the annotation is a mapping with names of its own, such as platform.resources."""
    return getattr(annotation, "__origin__", None) is dict
