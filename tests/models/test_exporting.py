"""What export refuses and what it leaves behind; that its numbers are right is compared in tests/parity."""

import json
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import pytest

from podium.errors import UserError
from podium.models import export, load
from support.folders import change_json, write_folder

HEAD = {"kernel": jnp.ones(32), "bias": jnp.zeros(())}


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({"role": "critic", "head": HEAD}, {}, "a critic has no use"),
        ({"role": "reward"}, {}, "has no head"),
        ({}, {"format": "adapter"}, "has no adapter"),
        ({}, {"format": "onnx"}, r"export\.format: 'onnx'"),
        ({}, {"dtype": "int4"}, "dtype 'int4'"),
    ],
)
def test_says_what_cannot_be_exported(changes: Any, options: Any, message: str, tmp_path: Path) -> None:
    model = load(write_folder(tmp_path / "base")).replace(**changes)
    with pytest.raises(UserError, match=message):
        export(model, tmp_path / "out", **options)
    assert [path.name for path in tmp_path.iterdir()] == ["base"]


def test_padding_that_is_an_end_is_not_handed_on(tmp_path: Path) -> None:
    """As SmolLM2 has it: servers and classifiers take everything from the padding token on for nothing."""
    base = write_folder(tmp_path / "base")
    change_json(base / "tokenizer_config.json", pad_token="</s>")
    folder = export(load(base), tmp_path / "out")
    assert json.loads((folder / "tokenizer_config.json").read_text())["pad_token"] == "<pad>"
    for name in ("config.json", "generation_config.json"):
        content = json.loads((folder / name).read_text())
        assert (content["eos_token_id"], content["pad_token_id"]) == (257, 258)


def test_a_second_export_leaves_no_shard_of_the_first(tmp_path: Path) -> None:
    model = load(write_folder(tmp_path / "base"))
    export(model, tmp_path / "out", max_shard_bytes=10_000)
    export(model, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").glob("*.safetensors*")] == ["model.safetensors"]
