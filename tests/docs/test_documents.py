"""What the documentation shows exists: files that it links to, and configs that it prints."""

from pathlib import Path

import pytest
import yaml

from podium.config import PodiumConfig, load_config_text
from support import documents

SECTIONS = set(PodiumConfig.model_fields)
DOCUMENTS = documents.documents()
CONFIGS = [
    block
    for document in DOCUMENTS
    for block in documents.blocks(document)
    if block.language in ("yaml", "yml") and set(yaml.safe_load(block.text) or ()) & SECTIONS
]


def test_readme_is_among_the_documents() -> None:
    assert documents.ROOT / "README.md" in DOCUMENTS
    assert documents.ROOT / "docs" / "architecture.md" in DOCUMENTS


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(documents.ROOT)))
def test_links_lead_to_files(document: Path) -> None:
    broken = [
        f"{number}: {target}" for number, target in documents.links(document) if not (document.parent / target).exists()
    ]
    assert broken == []


@pytest.mark.parametrize("block", CONFIGS, ids=lambda block: f"{block.document.name}:{block.line}")
def test_printed_configs_are_valid(block: documents.Block) -> None:
    shown = yaml.safe_load(block.text)
    config = load_config_text(
        yaml.safe_dump({"model": {"name_or_path": "a-model"}} | shown), source=str(block.document)
    )
    for section in SECTIONS & shown.keys():
        assert section in config.model_fields_set


def test_readme_shows_a_whole_config() -> None:
    assert any(block.document.name == "README.md" and block.title.endswith(".yaml") for block in CONFIGS)


def test_a_missing_link_and_an_open_block_are_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("[a](b.md#part) [c](https://d.example)\n```\n[e](f.md)\n```\n", encoding="utf-8")
    assert list(documents.links(page)) == [(1, "b.md")]
    page.write_text("```bash\nmake\n", encoding="utf-8")
    with pytest.raises(AssertionError, match="has no end"):
        list(documents.blocks(page))


def test_commands_are_joined_and_freed_of_prompts_and_comments(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "```console\n$ podium run \\\n    a.yaml  # why\noutput\n```\n"
        "```bash\n# a comment\nmake test\n```\n```python\nx\n```\n"
        "```\npodium schema      the user's\npodium status RUN   podium logs RUN\n```\n```\nerror: x\n```\n",
        encoding="utf-8",
    )
    assert [(command.line, command.text) for command in documents.commands(page)] == [
        (2, "podium run a.yaml"),
        (8, "make test"),
        (14, "podium schema"),
        (15, "podium status RUN"),
        (15, "podium logs RUN"),
    ]
