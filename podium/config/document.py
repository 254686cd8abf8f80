"""Read YAML or JSON into plain values that remember where each of them stands."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from podium.errors import UserError

Keys = tuple[str | int, ...]
Names = tuple[str, ...]

_MERGE = "tag:yaml.org,2002:merge"
# A configuration has some hundred values; far more can only be aliases that multiply each other.
_MOST_VALUES = 100_000


@dataclass(frozen=True)
class Place:
    """Where a value was written, and the folder that relative paths in it start from."""

    where: str
    folder: Path


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
    document.places = {keys: Place(f"{source}:{line}", folder) for keys, line in positions.items()}
    return document


def parse_value(text: str, source: str) -> tuple[Any, dict[Keys, int]]:
    """Read any YAML or JSON value, and the line of each key and item in it."""
    is_json, value = _try_json(text)
    try:
        # Tabs are blanks in JSON and forbidden in YAML; inside JSON strings they cannot occur.
        loader = yaml.SafeLoader(text.replace("\t", " ") if is_json else text)
        node = loader.get_single_node()
        positions = dict(_positions(node, source)) if node is not None else {}
        if is_json:
            return value, positions
        return (loader.construct_document(node) if node is not None else None), positions
    except yaml.MarkedYAMLError as error:
        raise UserError(_syntax(error, source)) from error
    except yaml.YAMLError as error:
        raise UserError(f"{source}: is not YAML: {str(error).splitlines()[0]}") from error
    except RecursionError as error:
        raise UserError(f"{source}: is nested too deeply or contains itself") from error
    except ValueError as error:
        raise UserError(f"{source}: a value cannot be read ({error}); write it in quotes") from error


def _try_json(text: str) -> tuple[bool, Any]:
    """Read JSON where it is JSON: YAML takes its escaped surrogate pairs for two characters."""
    if not text.lstrip().startswith("{"):
        return False, None
    try:
        return True, json.loads(text)
    except ValueError:
        return False, None


def _positions(root: yaml.Node, source: str) -> Iterator[tuple[Keys, int]]:
    """Yield the line of each key and item; refuse duplicate keys and keys that are not text."""
    pending: list[tuple[Keys, yaml.Node, frozenset[int]]] = [((), root, frozenset())]
    seen = 0
    while pending:
        keys, node, around = pending.pop()
        seen += 1
        if id(node) in around or seen > _MOST_VALUES:
            raise UserError(f"{source}:{node.start_mark.line + 1}: an alias contains itself or too much; write it out")
        inside = around | {id(node)}
        for key, line, child in _children(keys, node, source):
            if key is not None:
                yield (*keys, key), line
            pending.append((keys if key is None else (*keys, key), child, inside))


def _children(keys: Keys, node: yaml.Node, source: str) -> Iterator[tuple[str | int | None, int, yaml.Node]]:
    """Yield key, line and node of each child; the key None merges the child into its parent."""
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield index, item.start_mark.line + 1, item
    if not isinstance(node, yaml.MappingNode):
        return
    first: dict[str, int] = {}
    for key, value in node.value:
        line = key.start_mark.line + 1
        if key.tag == _MERGE:
            yield None, line, value
            continue
        if not isinstance(key, yaml.ScalarNode) or key.tag != "tag:yaml.org,2002:str":
            written = key.value if isinstance(key, yaml.ScalarNode) else "a list or mapping"
            raise UserError(f"{source}:{line}: {dotted((*keys, written))}: keys are text; write '{written}' in quotes")
        if key.value in first:
            name = dotted((*keys, key.value))
            raise UserError(f"{source}:{line}: {name}: given twice, first on line {first[key.value]}; keep one")
        first[key.value] = line
        yield key.value, line, value


def _syntax(error: yaml.MarkedYAMLError, source: str) -> str:
    """Put a YAML syntax error into one line."""
    mark = error.problem_mark or error.context_mark
    where = f"{source}:{mark.line + 1}" if mark else source
    problem = error.problem or error.context or "not YAML"
    if "'\\t'" in problem:
        return f"{where}: a tab in the indentation; write spaces"
    if "could not determine a constructor" in problem:
        return f"{where}: {problem.split('for the ')[-1]} is not allowed; write plain values"
    return f"{where}: not valid YAML: {problem}" + (f" ({error.context})" if error.context else "")


def describe(value: Any) -> str:
    """Name a value in an error as YAML would write it, shortened."""
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
