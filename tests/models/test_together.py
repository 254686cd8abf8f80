"""Weights that processes read together are those that one reads alone. Several processes: tests/parallel."""

import json
from pathlib import Path
from typing import Any

import jax
import ml_dtypes
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from safetensors.numpy import save_file

from podium.errors import UserError
from podium.models.config import NetworkConfig
from podium.models.families.config_json import parse_config
from podium.models.family import abstract_params, parameter_axes
from podium.models.weights.files import TensorFiles
from podium.models.weights.layout import Leaf, file_shapes, leaves
from podium.models.weights.reading import read_params
from podium.models.weights.together import check_alone, read_together
from podium.parallel.mesh import make_mesh
from podium.parallel.sharding import tree_shardings
from podium.stages.manifest import write_manifest
from podium.storage.parts import MANIFEST
from support.folders import CONFIG, FAMILIES, T5_CONFIG, change_tensors, write_family_folder, write_folder


def network(folder: Path) -> NetworkConfig:
    return parse_config(json.loads((folder / "config.json").read_text()), "config.json")


def read(folder: Path) -> Any:
    """Read by the path of several processes, on eight devices; returns the shardings that were asked for, too."""
    config, mesh = network(folder), make_mesh(data=2, fsdp=2, tensor=2)
    shardings = tree_shardings(mesh, parameter_axes(config)[0], abstract_params(config)[0])
    names = {name: name for name in file_shapes(leaves(config))}
    return read_together(TensorFiles.of_folder(folder), leaves(config), names, shardings, mesh), shardings


def read_alone(folder: Path) -> Any:
    return read_params(TensorFiles.of_folder(folder), network(folder))


@pytest.mark.parametrize(
    ("config", "dtype"),
    [
        (FAMILIES["gemma2"], np.float32),
        (T5_CONFIG, np.float16),
        (CONFIG | {"tie_word_embeddings": False}, ml_dtypes.bfloat16),
    ],
    ids=["gemma2", "t5", "llama"],
)
def test_they_are_the_same_bits_where_they_belong(tmp_path: Path, config: dict[str, Any], dtype: Any) -> None:
    folder = write_family_folder(tmp_path, config, dtype=dtype)
    together, shardings = read(folder)
    jax.tree.map(np.testing.assert_array_equal, together, read_alone(folder))
    assert all(x.dtype == np.float32 for x in jax.tree.leaves(together))
    assert jax.tree.map(lambda x: x.sharding, together) == shardings


def test_the_sign_of_zero_is_kept(tmp_path: Path) -> None:
    folder = write_folder(tmp_path)
    change_tensors(folder, model__norm__weight=np.full(32, -0.0, np.float32))
    together, alone = read(folder)[0], read_alone(folder)
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(np.signbit(x), np.signbit(y)), together, alone)


def test_an_odd_number_of_halves_fills_no_whole_number_of_32_bits(tmp_path: Path) -> None:
    values = np.asarray([1.5, -2.0, 0.25], ml_dtypes.bfloat16)
    save_file({"odd": values, "other": values}, tmp_path / "model.safetensors")
    mesh = make_mesh(data=8)
    names = {"odd": "odd", "other": "other"}
    odd = [Leaf((name,), name, (3,), ((0,),), 0) for name in names]
    shardings = {leaf.path[0]: NamedSharding(mesh, PartitionSpec()) for leaf in odd}
    tree = read_together(TensorFiles.of_folder(tmp_path), odd, names, shardings, mesh)
    assert {name: list(array) for name, array in tree.items()} == {name: [1.5, -2.0, 0.25] for name in names}


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_what_is_no_number_is_named(tmp_path: Path, number: float) -> None:
    folder = write_folder(tmp_path)
    change_tensors(folder, model__norm__weight=np.r_[np.ones(31), number].astype(np.float32))
    with pytest.raises(UserError, match=r"tensor model\.norm\.weight holds NaN or infinity"):
        read(folder)


def test_what_was_changed_after_the_manifest_is_noticed(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, vocab_size=2000)
    write_manifest(folder, stage="sft", config={}, inputs={})
    path = folder / "model.safetensors"
    assert "tree_sha256" in json.loads((folder / MANIFEST).read_text())["files"][path.name]
    read(folder)
    check_alone(TensorFiles.of_folder(folder))
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    for reading in (lambda: read(folder), lambda: check_alone(TensorFiles.of_folder(folder))):
        with pytest.raises(UserError, match=r"model\.safetensors: has another content than manifest\.json notes"):
            reading()
