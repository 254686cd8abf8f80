"""The rows in docs/data-formats.md are read as the format that they stand under."""

import re
from pathlib import Path

import pytest

from podium.data.demonstrations import DEMONSTRATION_FORMATS, read_demonstration
from podium.data.formats import FORMATS, read_preference
from podium.data.prompts import PROMPT_FORMATS, read_prompt
from podium.data.sources import parse_rows

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "data-formats.md").read_text("utf-8")


def rows(part):
    """Yield (format, row) of every block below a heading that names a format."""
    text = PAGE.split(f"\n## {part}\n")[1].split("\n## ")[0]
    for section in text.split("\n### ")[1:]:
        name = re.match(r"`(\w+)`", section).group(1)
        for kind, block in re.findall(r"```(json|csv)\n(.*?)```", section, re.DOTALL):
            for row in parse_rows(f"page.{kind}", block.encode()):
                yield name, row.values


@pytest.mark.parametrize(
    ("part", "formats", "read"),
    [
        ("Compared responses", FORMATS, read_preference),
        ("Prompts", PROMPT_FORMATS, read_prompt),
        ("Demonstrations", DEMONSTRATION_FORMATS, read_demonstration),
    ],
)
def test_documented_rows_are_read(part, formats, read):
    found = list(rows(part))
    assert list(dict.fromkeys(name for name, _ in found)) == list(formats)
    for name, row in found:
        record = read(row, name)
        assert record == read(row)
        assert record.prompt[-1]["content"] in ("Why is the sky blue?", "Once upon a time")
        if part == "Compared responses":
            best = record.responses[record.ranks.index(1)]
            assert "catter" in best
        if part == "Demonstrations":
            assert "catter" in record.response
