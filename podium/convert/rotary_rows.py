"""Two orders of a head's rows: neighbours are rotated against each other (Meta, llama.cpp) or halves (Hugging Face)."""

import numpy as np


def halves_from_pairs(values: np.ndarray, heads: int) -> np.ndarray:
    """Reorder the rows of a projection's weight or bias [heads * head_dim, ...]: first members first in each head."""
    half = values.shape[0] // heads // 2
    return values.reshape(heads, half, 2, *values.shape[1:]).swapaxes(1, 2).reshape(values.shape)
