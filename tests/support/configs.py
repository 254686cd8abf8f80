"""Configurations drawn from the JSON Schema: any field may be written, with any value that the checks accept."""

from collections.abc import Mapping
from typing import Any

from hypothesis import strategies as st
from pydantic import ValidationError

from podium.config import PodiumConfig, json_schema


def configs() -> st.SearchStrategy[PodiumConfig]:
    """Draw valid configurations of every shape."""
    return drafts().map(_without_mistakes)


def drafts() -> st.SearchStrategy[dict[str, Any]]:
    """Draw what a file may hold: each value is of its type and within its limits, together they may be refused."""
    schema = json_schema()
    return _values(schema, schema["$defs"])


def _values(schema: Mapping[str, Any], parts: Mapping[str, Any]) -> st.SearchStrategy[Any]:
    if "$ref" in schema:
        return _values(parts[schema["$ref"].rpartition("/")[2]], parts)
    if "anyOf" in schema:
        return st.one_of(*(_values(option, parts) for option in schema["anyOf"]))
    if "enum" in schema or "const" in schema:
        return st.sampled_from(schema.get("enum") or [schema["const"]])
    match schema["type"]:
        case "null":
            return st.none()
        case "boolean":
            return st.booleans()
        case "integer":
            return st.integers(*_limits(schema, 1))
        case "number":
            low, high = _limits(schema, 0)
            exclusive = {"exclude_min": "exclusiveMinimum" in schema, "exclude_max": "exclusiveMaximum" in schema}
            return st.floats(low, high, allow_nan=False, allow_infinity=False, **exclusive)
        case "string" if "pattern" in schema:
            return st.from_regex(schema["pattern"], fullmatch=True, alphabet=st.characters(max_codepoint=127))
        case "string":
            return st.text(min_size=schema.get("minLength", 0))
        case "array":
            return st.lists(_values(schema["items"], parts), max_size=3)
        case "object":
            return _mappings(schema, parts)
    raise AssertionError(f"a type that no configuration has yet: {schema}")


def _limits(schema: Mapping[str, Any], step: int) -> tuple[Any, Any]:
    """Return the bounds of a number; `step` is how far an exclusive one lies from the first number allowed."""
    low = schema["exclusiveMinimum"] + step if "exclusiveMinimum" in schema else schema.get("minimum")
    high = schema["exclusiveMaximum"] - step if "exclusiveMaximum" in schema else schema.get("maximum")
    return low, high


def _mappings(schema: Mapping[str, Any], parts: Mapping[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    if "properties" not in schema:
        # Names of the user's own: any, those of a list, or those that a pattern allows.
        names, values = schema.get("propertyNames", {"type": "string"}), schema.get("additionalProperties")
        for pattern, allowed in schema.get("patternProperties", {}).items():
            names, values = {"type": "string", "pattern": pattern}, allowed
        return st.dictionaries(_values(names, parts), _values(values, parts), max_size=2)
    fields = {name: _values(field, parts) for name, field in schema["properties"].items()}
    required = {name: fields.pop(name) for name in schema.get("required", ())}
    return st.fixed_dictionaries(required, optional=fields)


def _without_mistakes(draft: dict[str, Any]) -> PodiumConfig:
    """Take away what the checks refuse, a value or else the section around it, until they refuse nothing."""
    while True:
        try:
            return PodiumConfig.model_validate(draft)
        except ValidationError as error:
            detail = error.errors(include_url=False)[0]
            field = detail.get("ctx", {}).get("field")
            _take_away(draft, (*detail["loc"], *(field.split(".") if field else ())))


def _take_away(draft: dict[str, Any], keys: tuple[Any, ...]) -> None:
    """Remove the last thing on the path `keys` that was written and is not required."""
    found: tuple[Any, Any] | None = None
    node: Any = draft
    for key in keys:
        if not isinstance(node, dict | list) or (key not in node if isinstance(node, dict) else key >= len(node)):
            break
        if key not in ("model", "name_or_path", "path"):
            found = (node, key)
        node = node[key]
    assert found is not None, keys
    del found[0][found[1]]
