"""What export refuses and what it leaves behind; that its numbers are right is compared in tests/parity."""

from pathlib import Path
from typing import Any

import jax.numpy as jnp
import pytest

from podium.errors import UserError
from podium.models import export, load
from support.folders import write_folder

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


def test_a_second_export_leaves_no_shard_of_the_first(tmp_path: Path) -> None:
    model = load(write_folder(tmp_path / "base"))
    export(model, tmp_path / "out", max_shard_bytes=10_000)
    export(model, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").glob("*.safetensors*")] == ["model.safetensors"]
