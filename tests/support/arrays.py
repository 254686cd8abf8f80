"""Random arrays with what integer-valued, unpadded test data would hide: fractions, signs, holes, ties, empty rows."""

from typing import Any

import hypothesis.strategies as st
import numpy as np
from hypothesis.extra import numpy as arrays

# Few, because every new shape compiles every operation anew.
SHAPES = st.sampled_from([(1, 1), (3, 5)])


def floats(shape: tuple[int, ...], bound: float = 3.0) -> st.SearchStrategy[np.ndarray]:
    """Draw float32 arrays of fractions of either sign, or zero, whose products are not subnormal: XLA makes those 0."""
    numbers = st.floats(-bound, bound, width=32, allow_subnormal=False)
    return arrays.arrays(np.float32, shape, elements=numbers.map(lambda x: x if abs(x) > 1e-15 else 0.0))


def masks(shape: tuple[int, ...]) -> st.SearchStrategy[np.ndarray]:
    """Draw boolean arrays with any pattern: right or left padding, holes, empty rows, all false."""
    return arrays.arrays(np.bool_, shape)


@st.composite
def batches(draw: Any, names: str, bound: float = 3.0) -> dict[str, np.ndarray]:
    """Draw float arrays of one [batch, time] shape under the given names, and a `mask`."""
    shape = draw(SHAPES)
    return {name: draw(floats(shape, bound)) for name in names.split()} | {"mask": draw(masks(shape))}


@st.composite
def ranked(draw: Any) -> dict[str, np.ndarray]:
    """Draw ranked lists [batch, candidates] with ties and padding."""
    shape = draw(SHAPES)
    ranks = draw(arrays.arrays(np.int32, shape, elements=st.integers(1, 4)))
    return {"scores": draw(floats(shape)), "ranks": ranks, "mask": draw(masks(shape))}
