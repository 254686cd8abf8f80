"""How far two float32 results of one quantity may lie apart: docs/testing.md says how the bound is chosen."""

from typing import Any

import jax
import numpy as np

# Of the largest value of an array. Sums in another order (another mesh, micro-batches, an unoptimised program, another
# processor's vectors) were seen to move gradients and updated weights of the tiny networks by up to 5e-5 of it; a
# gradient that is summed twice, or not at all, on one of eight devices moves them by 1e-1.
REORDERED = 5e-4


def check_reordered(first: Any, second: Any, *, exact: dict[str, float] | None = None, smallest: float = 1e-2) -> None:
    """Compare two trees whose sums were taken in different orders, each array by its own largest value.

    `exact` names arrays with an absolute bound of their own: fractions that count on which side of an edge tokens lie.
    `smallest` is the size that an array is taken to have at least: what is 0 up to rounding has no size of its own.
    """
    for (path, x), y in zip(jax.tree_util.tree_leaves_with_path(first), jax.tree.leaves(second), strict=True):
        name = jax.tree_util.keystr(path)
        found, expected = np.asarray(x), np.asarray(y)
        scale = float(np.max(np.abs(expected), initial=0.0))
        special = [bound for part, bound in (exact or {}).items() if part in name]
        bound = special[0] if special else REORDERED * max(scale, smallest)
        np.testing.assert_allclose(found, expected, rtol=0, atol=bound, err_msg=name)
