"""Every option of a configuration is read by something: none is accepted and then left alone.

Seen to fail: with `platform.vertex.tensorboard` as it was, described and handed on by nothing.
"""

import ast
import typing
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

from podium.config import PodiumConfig

ROOT = Path(__file__).parents[2]
# What reads a configuration into sections is no reader of its values.
SOURCES = [
    path
    for folder in ("podium", "components", "pipelines")
    for path in (ROOT / folder).rglob("*.py")
    if ROOT / "podium" / "config" not in path.parents
]


def options(section: type[BaseModel] = PodiumConfig, path: str = "") -> Iterator[tuple[str, str]]:
    """Give every option's own name and dotted path."""
    for name, field in section.model_fields.items():
        inner = list(sections(field.annotation))
        for one in inner:
            yield from options(one, f"{path}{name}.")
        if not inner:
            yield name, f"{path}{name}"


def sections(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in typing.get_args(annotation):
        yield from sections(part)


def names_read(source: str) -> Iterator[str]:
    """Give what code takes from an object: x.name, x["name"], x.get("name"), and the keys of its tables."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Attribute(attr=name, ctx=ast.Load()):
                yield name
            case ast.Subscript(slice=ast.Constant(value=str(name)), ctx=ast.Load()):
                yield name
            case ast.Call(func=ast.Attribute(attr="get"), args=[ast.Constant(value=str(name)), *_]):
                yield name
            case ast.Dict(keys=keys):
                yield from (key.value for key in keys if isinstance(key, ast.Constant) and isinstance(key.value, str))


@pytest.fixture(scope="module")
def read() -> set[str]:
    return {name for path in SOURCES for name in names_read(path.read_text(encoding="utf-8"))}


def test_every_option_is_read_outside_the_configuration(read: set[str]) -> None:
    found = list(options())
    assert len(found) > 100
    assert [path for name, path in found if name not in read] == []


def test_a_name_that_is_only_written_is_not_read() -> None:
    assert set(names_read("x.a = 1; x['b'] = 2; f(c=3); 'd'; x.get(e)")) == {"get"}
    assert set(names_read("x.a; x['b']; x.get('c', 0); {'d': 1}")) == {"get", "a", "b", "c", "d"}
