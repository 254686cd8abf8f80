"""Write a commented config from the models' own descriptions: every field with its meaning and its default."""

import textwrap
from collections.abc import Iterator
from typing import Any, get_args, get_origin

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from podium.config.base import fields_of
from podium.config.explain import section_of
from podium.config.root import PodiumConfig

_WIDTH = 100
_HEAD = """\
A run of Podium. Set the three paths, then:  podium validate FILE  and  podium run FILE
A value behind #, such as #seed: 0, is the default. To change it, take the # away, also from the sections it is in.
Paths are relative to this file. podium schema prints the JSON Schema, with which editors complete and check."""
# What a run cannot do without, with a place to put one's own.
_PATHS = {
    "model.name_or_path": "models/my-model",
    "data.preferences": "pairs.jsonl",
    "data.prompts": "prompts.jsonl",
}


def commented_config() -> str:
    """Return a config in which the paths are to be set and every other field is a comment with its default."""
    return "\n".join([*_comment(_HEAD, ""), *_fields(PodiumConfig, "", live=True)]) + "\n"


def _fields(model: type[BaseModel], path: str, *, live: bool) -> Iterator[str]:
    """Yield the lines of a section; `live` says that the section itself is not a comment."""
    indent = "  " * path.count(".")
    for name, info in fields_of(model).items():
        here = f"{path}{name}"
        yield from [""] if not path else []
        yield from _comment(str(info.description), indent)
        # A word that stands in for a section, such as auto, is its default.
        single = _is_list_or_table(info.annotation) or isinstance(info.default, str)
        inner = None if single else section_of(info.annotation)
        if here in _PATHS:
            yield f"{indent}{name}: {_PATHS[here]}"
        elif inner is None:
            yield f"{indent}#{name}: {_value(info)}"
        else:
            needed = live and any(key.startswith(f"{here}.") for key in _PATHS)
            absent = "  # absent by default" if info.default is None else ""
            yield f"{indent}{'' if needed else '#'}{name}:{absent}"
            yield from _fields(inner, f"{here}.", live=needed)


def _comment(text: str, indent: str) -> Iterator[str]:
    """Yield text as comment lines; a blank behind # tells them from values."""
    for paragraph in text.splitlines():
        yield from textwrap.wrap(paragraph, _WIDTH, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# ")


def _value(info: FieldInfo) -> str:
    """Write a field's default as YAML on one line."""
    if info.default is PydanticUndefined:
        return "..."
    text = yaml.safe_dump(_plain(info.default), default_flow_style=True, allow_unicode=True, width=10_000)
    return text.removesuffix("...\n").strip()


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    return list(value) if isinstance(value, tuple) else value


def _is_list_or_table(annotation: Any) -> bool:
    """Tell whether a section in the annotation comes in numbers, or under names of the user's."""
    return get_origin(annotation) in (tuple, list, dict) or any(map(_is_list_or_table, get_args(annotation)))
