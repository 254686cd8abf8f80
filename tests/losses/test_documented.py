"""docs/rlhf.md names every public function of podium.losses, and only files that exist."""

import inspect
import re
from pathlib import Path

import pytest

from podium.losses import logprobs, masked, ppo, preference

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "rlhf.md").read_text(encoding="utf-8")
# Parts of other functions, explained where those are.
HELPERS = {"count", "variance", "last", "mean"}


@pytest.mark.parametrize("module", [logprobs, masked, ppo, preference], ids=lambda module: module.__name__)
def test_every_formula_is_explained(module):
    functions = inspect.getmembers(module, inspect.isfunction)
    names = {name for name, function in functions if function.__module__ == module.__name__ and name[0] != "_"}
    missing = {name for name in names - HELPERS if f"{module.__name__.split('.')[-1]}.{name}" not in TEXT}
    assert names
    assert not missing


def test_every_file_named_exists():
    files = set(re.findall(r"`((?:podium|tests)/[\w/.]+)`", TEXT))
    assert len(files) > 5
    assert not {name for name in files if not (ROOT / name).exists()}


def test_every_section_that_the_code_refers_to_exists():
    sections = set(re.findall(r"^## (\d+)\. ", TEXT, re.MULTILINE))
    for path in (ROOT / "podium").rglob("*.py"):
        for first, last in re.findall(
            r"docs/rlhf\.md,? sections? (\d+)(?: to (\d+))?", path.read_text(encoding="utf-8")
        ):
            assert {first, last or first} <= sections, path
