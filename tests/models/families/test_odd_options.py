"""Whatever stands in config.json: it is read, or refused in one line that names the file; nothing else happens."""

import math
from typing import Any

import pytest

from podium.errors import UserError
from podium.models.families.config_json import parse_config
from podium.models.families.options import Options
from support.folders import FAMILIES

ROPE = [
    {"rope_type": "linear", "factor": 0},
    {"type": "linear", "factor": math.nan},
    {"rope_type": "yarn", "factor": "4"},
    {"rope_type": "llama3", "factor": 8.0},
    {"rope_type": "dynamic", "factor": -1.0},
    {"rope_type": "dynamic", "factor": 2.0, "rope_theta": "10"},
    {"rope_type": ["yarn"]},
    {"full_attention": 1},
    {"sliding_attention": []},
]
LAYERS = [["full_attention"] * 2, ["sliding_attention", "full_attention"], [None, None], "full_attention"]
NUMBERS = [-1, 0, 1, 3, 10**9, 10**320, -0.5, 1.5, 1e30, math.nan, math.inf]
ODD: list[Any] = [None, "", "abc", "1", True, False, [], {}, [1, 2], [None], {"a": 1}, *NUMBERS, *ROPE, *LAYERS]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Give the names of all options that are asked for."""
    names: set[str] = set()
    original = Options.get

    def get(self: Options, key: str) -> Any:
        names.add(key)
        return original(self, key)

    monkeypatch.setattr(Options, "get", get)
    return names


@pytest.mark.parametrize("family", FAMILIES)
def test_any_value_of_any_option_is_read_or_refused(family: str, asked: set[str]) -> None:
    parse_config(FAMILIES[family], "config.json")
    read, refused = 0, 0
    for name in sorted(asked | FAMILIES[family].keys()):
        for value in ODD:
            try:
                config = parse_config(FAMILIES[family] | {name: value}, "config.json")
            except UserError as error:
                assert str(error).startswith("config.json: ") and "\n" not in str(error)
                refused += 1
            else:
                numbers = [found for found in vars(config).values() if isinstance(found, int | float)]
                assert all(map(math.isfinite, numbers)), (name, value)
                read += 1
    assert read and refused
