"""Write the tables of docs/config.md from the models: `python -m podium.config.reference docs/config.md`."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from podium.config.aliases import RENAMED
from podium.config.base import fields_of
from podium.config.explain import section_of
from podium.config.managed import MANAGED
from podium.config.root import PodiumConfig

_LIMITS = {"exclusiveMinimum": ">", "minimum": ">=", "exclusiveMaximum": "<", "maximum": "<="}
BEGIN, END = "<!-- begin {} -->", "<!-- end {} -->"


def tables() -> dict[str, str]:
    """Return the generated parts of the page by name."""
    return {"fields": _fields(), "names": _names(), "managed": _managed()}


def filled(page: str) -> str:
    """Return the page with its generated parts replaced."""
    for name, table in tables().items():
        begin, end = BEGIN.format(name), END.format(name)
        before, _, rest = page.partition(begin)
        page = f"{before}{begin}\n\n{table}\n\n{end}{rest.partition(end)[2]}"
    return page


def _sections(model: type[BaseModel], path: str) -> Iterator[tuple[type[BaseModel], str]]:
    """Yield each section and its dotted path, outer before inner."""
    yield model, path
    for name, info in fields_of(model).items():
        inner = section_of(info.annotation)
        if inner is not None:
            yield from _sections(inner, f"{path}.{name}".lstrip(".") + _suffix(info.annotation))


def _fields() -> str:
    """Return a heading and a table for each section; one that occurs in several places is shown once."""
    places: dict[type[BaseModel], list[str]] = {}
    for model, path in _sections(PodiumConfig, ""):
        places.setdefault(model, []).append(path)
    parts = []
    for model, paths in places.items():
        rows = [
            f"| `{name}` | {_type(model, name)} | {_default(info)} | {info.description} |"
            for name, info in _plain(model)
        ]
        title = ", ".join(f"`{path}`" for path in paths if path) or "The top of the file"
        table = "\n".join(["| Key | Type | Default | Meaning |", "| --- | --- | --- | --- |", *rows])
        parts.append(f"### {title}\n\n{model.__doc__}" + (f"\n\n{table}" if rows else ""))
    return "\n\n".join(parts)


def _plain(model: type[BaseModel]) -> Iterator[tuple[str, FieldInfo]]:
    """Yield the fields that get a row: values, and sections that may be null or come in numbers."""
    for name, info in fields_of(model).items():
        if not (isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel)):
            yield name, info


def _suffix(annotation: Any) -> str:
    """Return what stands for the name or number of an entry."""
    if get_origin(annotation) is dict:
        return ".STAGE"
    return ".N" if tuple in (get_origin(annotation), *map(get_origin, get_args(annotation))) else ""


def _type(model: type[BaseModel], name: str) -> str:
    """Return a field's type with its limits."""
    schema = model.model_json_schema()["properties"][name]
    limits = schema | next((option for option in schema.get("anyOf", []) if option.get("type") != "null"), {})
    words = [f"{sign} {limits[key]}" for key, sign in _LIMITS.items() if key in limits]
    kind, null, _ = _type_name(model.model_fields[name].annotation).partition(" or null")
    return " ".join([kind, ", ".join(words)]).strip() + null


def _type_name(annotation: Any) -> str:
    """Name a type as a user would."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if origin is tuple:
        return f"list of {_type_name(arguments[0])}"
    if origin is dict:
        return "mapping by stage name"
    if type(None) in arguments:
        return " or ".join([*(_type_name(item) for item in arguments if item is not type(None)), "null"])
    if any(get_origin(item) is Literal for item in arguments):
        return " or ".join(map(_type_name, arguments))
    if arguments:
        return _type_name(arguments[0])
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return {"Source": "file", "LoraConfig": "section"}.get(annotation.__name__, "section")
    return {str: "text", int: "whole number", float: "number", bool: "true or false"}[annotation]


def _default(info: FieldInfo) -> str:
    if info.default is PydanticUndefined:
        return "*required*"
    value = list(info.default) if isinstance(info.default, tuple) else info.default
    return "" if value in ([], {}) else f"`{json.dumps(value).strip(chr(34))}`"


def _names() -> str:
    """Return the table of other tools' names."""
    rows = [f"| `{old}` | `{new}` |" for old, new in RENAMED.items()]
    return "\n".join(["| Accepted | Read as |", "| --- | --- |", *rows])


def _managed() -> str:
    """Return the table of the managed pipeline's parameters."""
    rows = []
    for name, parameter in MANAGED.items():
        meaning = ", ".join(f"`{target}`" for target in parameter.targets) or f"nothing: {parameter.remark}"
        default = "" if parameter.default is None else f"`{parameter.default}`"
        rows.append(f"| `{name}` | {meaning} | {default} |")
    return "\n".join(["| Parameter | Read as | Where it is left out |", "| --- | --- | --- |", *rows])


if __name__ == "__main__":
    file = Path(sys.argv[1])
    file.write_text(filled(file.read_text(encoding="utf-8")), encoding="utf-8")
