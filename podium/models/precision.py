"""Which type weights are stored in: masters in float32, and what products read in the type a network computes in.

Frozen weights (the base of adapters, reference, reward model) are stored in the compute type once and for all. Trained
ones keep float32 masters, beside which a copy in the compute type lives for the length of one update.
"""

from typing import Any

import jax

Tree = Any

# Used in float32 whatever the network computes in, and too small to matter: scales of norms, scalar heads, and the bias
# that T5 adds to scores.
_WIDE = frozenset({"scale", "head", "position_bias"})


def in_compute_type(tree: Tree, dtype: str) -> Tree:
    """Give the weights of a network, or any part of them, in its compute type; leaves that are in it are not copied."""

    def cast(path: tuple[Any, ...], leaf: jax.Array) -> jax.Array:
        names = {jax.tree_util.keystr((key,), simple=True) for key in path}
        return leaf if names & _WIDE or leaf.dtype == dtype else leaf.astype(dtype)

    return jax.tree_util.tree_map_with_path(cast, tree)
