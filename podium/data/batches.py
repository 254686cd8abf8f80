"""Batches of fixed shape, in NumPy, as pure functions of the data, the seed and the step."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int32]
Mask = NDArray[np.bool_]


class Padded(NamedTuple):
    """Token rows of one length; `mask` is true at real tokens."""

    ids: Ids
    mask: Mask


def permutation(n: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """Return the order of n rows in one epoch.

    Sorts the raw output of Philox: NumPy promises its bit streams for all versions, of `Generator.permutation` it does
    not.
    """
    draws = np.random.Philox(key=np.array([seed, epoch], dtype=np.uint64)).random_raw(n)
    return np.argsort(draws, kind="stable")


def batch_indices(n: int, batch_size: int, seed: int, step: int) -> NDArray[np.int64]:
    """Return the rows of one step: step k takes places k*batch_size ... of the endless sequence of shuffled epochs.

    Depends on its arguments only, so a run that resumes at a step sees the rows it would have seen. A batch may reach
    into the next epoch: every row is seen once an epoch, and none is left over.
    """
    if n < 1:
        raise ValueError(f"no rows to draw from: n is {n}")
    places = np.arange(step * batch_size, (step + 1) * batch_size)
    epochs = places // n
    return np.array(
        [_order(n, seed, epoch)[place] for epoch, place in zip(epochs.tolist(), (places % n).tolist(), strict=True)],
        dtype=np.int64,
    )


# Of two epochs, where a batch reaches from one into the next.
_order = functools.lru_cache(maxsize=2)(permutation)


def steps_per_epoch(n: int, batch_size: int) -> int:
    """Return how many steps see every row at least once."""
    return -(-n // batch_size)


def pad_right(rows: Sequence[Sequence[int]], length: int, pad_id: int) -> Padded:
    """Put padding after each row. A row longer than `length` is an error: nothing is ever cut."""
    return _pad(rows, length, pad_id, left=False)


def pad_left(rows: Sequence[Sequence[int]], length: int, pad_id: int) -> Padded:
    """Put padding before each row, so that generation goes on at the same place in all of them."""
    return _pad(rows, length, pad_id, left=True)


def _pad(rows: Sequence[Sequence[int]], length: int, pad_id: int, *, left: bool) -> Padded:
    ids = np.full((len(rows), length), pad_id, dtype=np.int32)
    mask = np.zeros((len(rows), length), dtype=np.bool_)
    for place, row in enumerate(rows):
        if len(row) > length:
            raise ValueError(f"row {place} has {len(row)} tokens, more than {length}")
        cells = slice(length - len(row), length) if left else slice(0, len(row))
        ids[place, cells] = row
        mask[place, cells] = True
    return Padded(ids, mask)
