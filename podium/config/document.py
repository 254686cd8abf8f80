"""Read YAML or JSON into plain values that remember where each of them stands.

YAML 1.1 reads some words as something else: 010 is 8 to it, 1:30 is 90. Such numbers are refused, and dates are text.
"""

import itertools
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from podium.config.places import holds_secret
from podium.errors import UserError

Keys = tuple[str | int, ...]
Names = tuple[str, ...]

_TAG = "tag:yaml.org,2002:"
_MERGE = f"{_TAG}merge"
_PLAIN = frozenset(f"{_TAG}{name}" for name in ("str", "int", "float", "bool", "null"))
# A configuration has some hundred values; far more can only be aliases that multiply each other.
_MOST_VALUES = 100_000
# No section lies deeper than a handful of others.
_DEEPEST = 100
LONGEST = 1 << 20
_SHOWN = 5
# NUL ends a path to the operating system; halves of surrogate pairs have no UTF-8.
_NO_TEXT = re.compile("[\x00\ud800-\udfff]")


class _Loader(yaml.SafeLoader):
    """YAML without dates and the word `=`: 2024-01-01 is the text that stands there."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag in _PLAIN | {_MERGE}]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


@dataclass(frozen=True)
class Place:
    """Where a value was written, the folder that relative paths in it start from, and the word itself if it is one."""

    where: str
    folder: Path
    written: str = ""


@dataclass
class Document:
    """Plain values and the place of each."""

    data: dict[str, Any]
    root: Place
    places: dict[Keys, Place] = field(default_factory=dict)

    def place(self, keys: Keys) -> Place:
        """Return where `keys` was written, or else the nearest thing around it."""
        for end in range(len(keys), 0, -1):
            if keys[:end] in self.places:
                return self.places[keys[:end]]
        return self.root

    def move(self, old: Keys, new: Keys) -> None:
        """Give `new`, and what lies in it, the places of `old`."""
        for keys in [keys for keys in self.places if keys[: len(old)] == old]:
            self.places[new + keys[len(old) :]] = self.places.pop(keys)

    def forget(self, keys: Keys) -> None:
        """Drop the places of `keys` and of what lay in it."""
        self.places = {other: place for other, place in self.places.items() if other[: len(keys)] != keys}


def dotted(keys: Keys) -> str:
    """Write keys as users do: data.prompts.0.path."""
    return ".".join(str(key) for key in keys)


def parse(text: str, source: str, folder: Path) -> Document:
    """Read one YAML or JSON mapping; raise UserError with the line of whatever is wrong."""
    value, positions = parse_value(text, source)
    document = Document({}, Place(source, folder))
    if value is None:
        raise UserError(f"{source}: is empty; write at least model: {{name_or_path: ...}}")
    if not isinstance(value, dict):
        raise UserError(f"{source}: holds {describe(value)}, not a mapping; write sections such as model: and data:")
    document.data = value
    document.places = {keys: Place(f"{source}:{line}", folder, word) for keys, (line, word) in positions.items()}
    return document


def parse_value(text: str, source: str) -> tuple[Any, dict[Keys, tuple[int, str]]]:
    """Read any YAML or JSON value; beside it the line of each key and item in it, and the word that stands there."""
    text = text.removeprefix("\ufeff")
    if len(text) > LONGEST:
        raise UserError(f"{source}: is longer than {LONGEST:,} characters; name the YAML file of a run")
    try:
        is_json, value = _try_json(text)
        # Tabs are blanks in JSON and forbidden in YAML; inside JSON strings they cannot occur.
        loader = _Loader(text.replace("\t", " ") if is_json else text)
        node = loader.get_single_node()
        if node is None:
            return None, {}
        reader = _Reader(loader, source)
        read = reader.read(node)
        reader.refuse_ambiguous()
        return value if is_json else read, reader.positions
    except yaml.MarkedYAMLError as error:
        raise UserError(_syntax(error, source)) from error
    except yaml.YAMLError as error:
        raise UserError(f"{source}: is not YAML: {str(error).splitlines()[0]}") from error
    except RecursionError as error:
        raise UserError(f"{source}: is nested too deeply or contains itself") from error


def parse_word(text: str, source: str) -> Any:
    """Read one word as YAML reads it outside quotes, or take the text as it stands: a number, true, null, or text."""
    loader = _Loader("")
    tag: str = loader.resolve(yaml.ScalarNode, text, (True, False))  # type: ignore[no-untyped-call]  # PyYAML has none
    node = yaml.ScalarNode(tag, text)
    if node.tag == _MERGE:
        return text
    reader = _Reader(loader, source)
    value = reader.scalar((), node, source)
    reader.refuse_ambiguous()
    return value


def _try_json(text: str) -> tuple[bool, Any]:
    """Read JSON where it is JSON: YAML takes its escaped surrogate pairs for two characters."""
    if not text.lstrip().startswith("{"):
        return False, None
    try:
        return True, json.loads(text)
    except ValueError:
        return False, None


class _Reader:
    """Turn nodes into values of their own, an alias too: what is changed in one place stays as it is in another."""

    def __init__(self, loader: _Loader, source: str) -> None:
        self._loader = loader
        self._source = source
        self._seen = 0
        self._ambiguous: list[str] = []
        self.positions: dict[Keys, tuple[int, str]] = {}

    def read(self, node: yaml.Node, keys: Keys = ()) -> Any:
        """Return the value of a node and note where everything in it stands."""
        where = self._where(node.start_mark.line + 1)
        self._seen += 1
        if self._seen > _MOST_VALUES or len(keys) > _DEEPEST:
            raise UserError(f"{where}: an alias contains itself or too much; write it out")
        if isinstance(node, yaml.ScalarNode):
            return self.scalar(keys, node, where)
        if isinstance(node, yaml.SequenceNode):
            self._require(node, where, f"{_TAG}seq")
            for index, item in enumerate(node.value):
                self.positions[(*keys, index)] = (item.start_mark.line + 1, _word(item))
            return [self.read(item, (*keys, index)) for index, item in enumerate(node.value)]
        assert isinstance(node, yaml.MappingNode), "YAML has three kinds of nodes"
        self._require(node, where, f"{_TAG}map")
        children = self._children(keys, node)
        for key, (line, child) in children.items():
            self.positions[(*keys, key)] = (line, _word(child))
        return {key: self.read(child, (*keys, key)) for key, (_, child) in children.items()}

    def scalar(self, keys: Keys, node: yaml.ScalarNode, where: str) -> Any:
        """Return a number, text, true, false or null; note a number that a person reads otherwise than YAML does."""
        self._require(node, where, *_PLAIN)
        try:
            value = self._loader.construct_object(node, deep=True)
        except ValueError:
            raise UserError(
                f"{where}: {_name(keys)}{describe(node.value)} cannot be read; write it in quotes"
            ) from None
        if isinstance(value, int | float) and not isinstance(value, bool):
            text = node.value
            if ":" in text:
                meant = f"a number such as {value}"
            elif isinstance(value, int) and re.fullmatch(r"[-+]?0[0-7_]+", text):
                sign, digits = ("-" if text.startswith("-") else ""), text.lstrip("+-0_") or "0"
                meant = f"{sign}{digits} or {value}"
            else:
                return value
            self._ambiguous.append(
                f"{where}: {_name(keys)}YAML reads {text} as {value}; write {meant}, or '{text}' in quotes for text"
            )
        return value

    def refuse_ambiguous(self) -> None:
        """Raise UserError where a number was read that a person reads otherwise."""
        if self._ambiguous:
            raise UserError("\n".join(self._ambiguous[:_SHOWN]))

    def _children(self, keys: Keys, node: yaml.MappingNode) -> dict[str, tuple[int, yaml.Node]]:
        """Return line and node of each key: a mapping's own, then what it merges, where the first mapping counts."""
        self._seen += 1
        if self._seen > _MOST_VALUES:
            raise UserError(f"{self._where(node.start_mark.line + 1)}: an alias contains itself or too much")
        own: dict[str, tuple[int, yaml.Node]] = {}
        merged: dict[str, tuple[int, yaml.Node]] = {}
        first: dict[str, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            name = self._key(keys, key, line)
            if name in first:
                path = dotted((*keys, name))
                raise UserError(f"{self._where(line)}: {path}: given twice, first on line {first[name]}; keep one")
            first[name] = line
            if key.tag != _MERGE:
                own[name] = (line, value)
                continue
            for mapping in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                if not isinstance(mapping, yaml.MappingNode):
                    raise UserError(
                        f"{self._where(line)}: {dotted((*keys, '<<'))}: merges a mapping, such as <<: *name"
                    )
                merged = self._children(keys, mapping) | merged
        return merged | own

    def _key(self, keys: Keys, key: yaml.Node, line: int) -> str:
        if isinstance(key, yaml.ScalarNode) and key.tag in (f"{_TAG}str", _MERGE):
            return str(key.value)
        written = key.value if isinstance(key, yaml.ScalarNode) else "a list or mapping"
        raise UserError(f"{self._where(line)}: {dotted((*keys, written))}: keys are text; write '{written}' in quotes")

    def _require(self, node: yaml.Node, where: str, *tags: str) -> None:
        if node.tag not in tags:
            raise UserError(f"{where}: the tag {node.tag!r} is not allowed; write plain values")

    def _where(self, line: int) -> str:
        return f"{self._source}:{line}"


def _name(keys: Keys) -> str:
    return f"{dotted(keys)}: " if keys else ""


def _word(node: yaml.Node) -> str:
    """Return what stands at a node in one word outside quotes, else nothing."""
    return node.value if isinstance(node, yaml.ScalarNode) and node.style is None else ""


def ends_early(text: str) -> bool:
    """Tell whether YAML that was read ends before its text does: what follows is a comment."""
    node = yaml.compose(text, _Loader)
    return node is not None and node.end_mark.index < len(text.rstrip())


def first_unfit(value: Any) -> tuple[Keys, str] | None:
    """Return where a value has a shape that no configuration has, or text that no file can hold, and what to mend."""
    pending: list[tuple[Keys, Any]] = [((), value)]
    for seen in itertools.count():
        if not pending:
            return None
        keys, item = pending.pop()
        if len(keys) > _DEEPEST or seen > _MOST_VALUES:
            return keys[:3], "is nested too deeply or holds too much; write what docs/config.md lists"
        if isinstance(item, dict):
            pending.extend(((*keys, key), inner) for key, inner in item.items())
            pending.extend((keys, str(key)) for key in item)
        elif isinstance(item, list | tuple):
            pending.extend(((*keys, index), inner) for index, inner in enumerate(item))
        elif isinstance(item, str) and (match := _NO_TEXT.search(item)):
            return keys, f"holds the character U+{ord(match.group()):04X}, which is no text; take it out"
    raise AssertionError("count never ends")


def _syntax(error: yaml.MarkedYAMLError, source: str) -> str:
    """Put a YAML syntax error into one line."""
    mark = error.problem_mark or error.context_mark
    where = f"{source}:{mark.line + 1}" if mark else source
    problem = error.problem or error.context or "not YAML"
    if "'\\t'" in problem:
        return f"{where}: a tab in the indentation; write spaces"
    return f"{where}: not valid YAML: {problem}" + (f" ({error.context})" if error.context else "")


def describe(value: Any) -> str:
    """Name a value in an error as YAML would write it, shortened."""
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, str) and holds_secret(value):
        return "an address with a secret"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
