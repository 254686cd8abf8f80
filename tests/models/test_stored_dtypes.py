"""Load, export, load again: the same bits in the type they are stored in.

Seen to fail: with float16 rounded through bfloat16; with a number beyond the largest written as an infinity.
"""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from podium.errors import UserError
from podium.models import Model, export, load
from podium.models.weights.writing import Tensor, write_safetensors
from support.folders import CONFIG, change_json, random_tensors, write_folder
from support.stored import read_stored, write_stored

# Bits of a number, and those of them that are all set in infinities and NaN.
FORMS: dict[str, tuple[str, Any, int]] = {
    "float32": ("F32", np.uint32, 0x7F800000),
    "bfloat16": ("BF16", np.uint16, 0x7F80),
    "float16": ("F16", np.uint16, 0x7C00),
}
SHAPES = {name: value.shape for name, value in random_tensors(CONFIG).items()}
NORM = "model.norm.weight"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("stored") / "model")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load(write_folder(tmp_path_factory.mktemp("stored") / "other"))


def finite(bits: np.ndarray, exponent: int) -> np.ndarray:
    """Turn infinities and NaN into other numbers: by taking one bit of the exponent away."""
    lowest = exponent & -exponent
    return np.where(bits & exponent == exponent, bits & ~bits.dtype.type(lowest), bits)


@pytest.mark.parametrize("dtype", FORMS)
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_export_gives_back_the_bits_that_were_loaded(
    dtype: str, data: st.DataObject, folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    code, kind, exponent = FORMS[dtype]
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1), label="seed"))
    bits = {name: rng.integers(0, np.iinfo(kind).max, shape, kind, endpoint=True) for name, shape in SHAPES.items()}
    # Where hypothesis looks for the smallest, the largest and the negative zero.
    bits[NORM] = data.draw(arrays(kind, SHAPES[NORM]), label=NORM)
    written = {name: (code, finite(value, exponent).tobytes()) for name, value in bits.items()}
    write_stored(folder / "model.safetensors", written, SHAPES)
    change_json(folder / "config.json", torch_dtype=dtype)
    first = load(folder)
    out = export(first, tmp_path_factory.mktemp("out") / "model", dtype=dtype)
    assert read_stored(out / "model.safetensors") == written
    again = load(out)
    jax.tree.map(np.testing.assert_array_equal, again.params, first.params)
    assert again.config == first.config


def with_norm(model: Model, value: float) -> Model:
    scale = model.params["final_norm"]["scale"].at[3].set(value)
    return model.replace(params={**model.params, "final_norm": {"scale": scale}})


@pytest.mark.parametrize(
    ("dtype", "largest", "beyond"),
    [("float16", 65504.0, 65505.0), ("float16", -65504.0, -65536.0), ("bfloat16", 3.3895e38, 3.4e38)],
)
def test_a_number_beyond_the_largest_is_refused(
    dtype: str, largest: float, beyond: float, model: Model, tmp_path: Path
) -> None:
    folder = export(with_norm(model, largest), tmp_path / "out", dtype=dtype)
    assert np.isfinite(np.asarray(load(folder).params["final_norm"]["scale"])).all()
    for value in (beyond, np.inf, np.nan):
        with pytest.raises(UserError, match=rf"tensor model\.norm\.weight holds NaN or a number beyond .* of {dtype}"):
            export(with_norm(model, value), tmp_path / "bad", dtype=dtype)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_rounds_to_the_nearest_and_keeps_the_smallest(model: Model, tmp_path: Path) -> None:
    smallest = 2.0**-24
    for value, expected in ((1 + 2.0**-11, 1.0), (1 + 3 * 2.0**-11, 1 + 2.0**-9), (smallest, smallest)):
        path = tmp_path / str(value)
        found = load(export(with_norm(model, value), path, dtype="float16")).params["final_norm"]["scale"]
        assert float(jnp.asarray(found)[3]) == expected


def test_a_file_may_hold_several_types(tmp_path: Path) -> None:
    values = np.asarray([1.5, -2.0], np.float32)
    tensors = [Tensor(name, (2,), lambda: values, dtype) for name, dtype in (("a", "float16"), ("b", None))]
    write_safetensors(tmp_path / "x", tensors, "bfloat16")
    assert read_stored(tmp_path / "x") == {
        "a": ("F16", values.astype(np.float16).tobytes()),
        "b": ("BF16", bytes([0xC0, 0x3F, 0x00, 0xC0])),
    }
