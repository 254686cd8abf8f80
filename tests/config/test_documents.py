"""The JSON Schema and docs/config.md say what the models say.

Seen to fail: with a default changed in the models only; with a description removed; with limits outside the validator,
where pydantic leaves them out of the schema.
"""

from pathlib import Path

from podium.config import json_schema, load_config
from podium.config.explain import model_at, paths
from podium.config.reference import filled
from support.documents import ROOT, blocks

PAGE = ROOT / "docs" / "config.md"


def test_the_tables_of_the_page_are_current() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page == filled(page), "run: python -m podium.config.reference docs/config.md"


def test_every_field_and_section_is_described_in_the_schema() -> None:
    for path in paths():
        *keys, name = path.split(".")
        model = model_at(tuple(keys))
        assert model is not None
        assert model.__doc__, path
        description = model.model_fields[name].description
        assert description, path
        assert description.endswith("."), path


def test_the_schema_carries_limits_and_refuses_unknown_keys() -> None:
    schema = json_schema()
    ppo = schema["$defs"]["PpoConfig"]
    assert ppo["additionalProperties"] is False
    assert ppo["properties"]["max_steps"]["exclusiveMinimum"] == 0
    assert ppo["properties"]["gamma"]["maximum"] == 1
    assert schema["required"] == ["model"]


def test_the_examples_of_the_page_are_valid(tmp_path: Path) -> None:
    shown = [block for block in blocks(PAGE) if block.title]
    assert {block.title for block in shown} == {"smallest.yaml", "with-sft.yaml", "managed.json"}
    for block in shown:
        path = tmp_path / block.title
        path.write_text(block.text)
        assert load_config(path).data.preferences
