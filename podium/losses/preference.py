"""Turn comparisons of responses into losses of a reward model.

A comparison is a pair, [pairs], or a ranked list, [batch, candidates], where rank 1 is best, equal ranks are ties, and
`mask` is false at padding. `weight` (per pair or list; zero removes it whatever it holds) makes weighted means; no
weight at all gives a loss of zero. docs/rlhf.md sections 2 to 4.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from podium.losses import masked


def pairwise_loss(
    chosen: Float[Array, " pairs"],
    rejected: Float[Array, " pairs"],
    margin: Float[Array, " pairs"] | None = None,
    *,
    weight: Array | None = None,
) -> Float[Array, ""]:
    """Return the mean of -log sigmoid(chosen - rejected - margin): Bradley and Terry's model, Llama 2's margin."""
    counted = _counted(jnp.shape(chosen), weight)
    difference = masked.fill(chosen, counted) - masked.fill(rejected, counted)
    if margin is not None:
        difference = difference - masked.fill(margin, counted)
    return _weighted_mean(-jax.nn.log_sigmoid(difference), counted, weight)


def ranked_pairs_loss(
    scores: Float[Array, "batch candidates"],
    ranks: Int[Array, "batch candidates"],
    mask: Bool[Array, "batch candidates"],
    *,
    margin: Float[Array, " batch"] | None = None,
    weight: Float[Array, " batch"] | None = None,
) -> Float[Array, ""]:
    """Return the mean over lists of the mean pair loss of a list: every list counts once, however long it is.

    Ouyang et al. 2022 (InstructGPT), equation 1: K candidates give K choose 2 pairs, each weighted one over that
    number. Tied pairs compare nothing: they leave both sum and number, and a list without a pair leaves the mean.
    """
    counts = jnp.asarray(mask, bool)
    scores = masked.fill(scores, counts)
    ranks = jnp.asarray(ranks)
    pairs = _both(counts) & (ranks[:, :, None] < ranks[:, None, :])
    difference = scores[:, :, None] - scores[:, None, :]
    has_pair = pairs.any(axis=(1, 2))
    if margin is not None:
        difference = difference - masked.fill(margin, has_pair)[:, None, None]
    total = masked.fill(-jax.nn.log_sigmoid(difference), pairs).sum(axis=(1, 2))
    number = pairs.sum(axis=(1, 2), dtype=jnp.int32).astype(jnp.float32)
    return _weighted_mean(total / jnp.maximum(number, 1.0), has_pair, weight)


def plackett_luce_loss(
    scores: Float[Array, "batch candidates"],
    ranks: Int[Array, "batch candidates"],
    mask: Bool[Array, "batch candidates"],
    *,
    weight: Float[Array, " batch"] | None = None,
) -> Float[Array, ""]:
    """Return the mean over lists of -log P(ranking), the best chosen first among all, then the next among the rest.

    P = prod_i exp(s_i) / sum_{j not better than i} exp(s_j) (Plackett 1975, Luce 1959). A group of d tied candidates
    is taken by Efron's rule (1977, of the Cox likelihood, which is this one): its k-th factor, k = 0 .. d - 1, has
    (1 - k / d) of the group's own weight in the denominator. Their order in the array makes no difference, ties draw
    scores together, and two untied candidates give `pairwise_loss`. A list of fewer than two candidates leaves the
    mean.
    """
    counts = jnp.asarray(mask, bool)
    scores = masked.fill(scores, counts)
    share = _efron_share(jnp.asarray(ranks), counts)
    # exp(-inf) = 0 drops a candidate from a denominator. An uncounted one keeps itself: a sum of nothing has a NaN
    # gradient, which would be dropped, but not before jax_debug_nans has seen it.
    present = share > 0
    terms = jnp.where(present, scores[:, None, :] + jnp.log(jnp.where(present, share, 1.0)), -jnp.inf)
    factors = masked.fill(jax.nn.logsumexp(terms, axis=-1) - scores, counts)
    compares = counts.sum(axis=1, dtype=jnp.int32) > 1
    return _weighted_mean(factors.sum(axis=1), compares, weight)


def centering_loss(
    scores: Float[Array, "batch candidates"],
    mask: Bool[Array, "batch candidates"],
    *,
    weight: Float[Array, " batch"] | None = None,
) -> Float[Array, ""]:
    """Return the mean over lists of the mean of (s_i + s_j)^2 over the list's pairs, ties included.

    A comparison fixes scores up to a constant; a small multiple of this term fixes the constant near zero. Eisenstein
    et al. 2023, "Helping or herding?", equation 2, for pairs: `jnp.stack([chosen, rejected], 1)`.
    """
    counts = jnp.asarray(mask, bool)
    scores = masked.fill(scores, counts)
    order = jnp.arange(scores.shape[1])
    pairs = _both(counts) & (order[:, None] < order[None, :])[None]
    squares = masked.fill(jnp.square(scores[:, :, None] + scores[:, None, :]), pairs).sum(axis=(1, 2))
    number = pairs.sum(axis=(1, 2), dtype=jnp.int32).astype(jnp.float32)
    return _weighted_mean(squares / jnp.maximum(number, 1.0), number > 0, weight)


def _efron_share(ranks: Array, counts: Array) -> Float[Array, "batch candidates candidates"]:
    """Say how much of candidate j stands in the denominator of candidate i's factor."""
    pairs = _both(counts)
    worse = pairs & (ranks[:, :, None] < ranks[:, None, :])
    tied = pairs & (ranks[:, :, None] == ranks[:, None, :])
    order = jnp.arange(ranks.shape[1])
    earlier = tied & (order[:, None] > order[None, :])[None]
    place, size = (x.sum(axis=2, dtype=jnp.int32).astype(jnp.float32) for x in (earlier, tied))
    own = 1.0 - place / jnp.maximum(size, 1.0)
    alone = (order[:, None] == order[None, :])[None] & ~counts[:, :, None]
    return worse.astype(jnp.float32) + jnp.where(tied, own[:, :, None], 0.0) + alone.astype(jnp.float32)


def _both(counts: Array) -> Array:
    return counts[:, :, None] & counts[:, None, :]


def _counted(shape: tuple[int, ...], weight: Array | None) -> Array:
    return jnp.ones(shape, bool) if weight is None else jnp.asarray(weight).astype(jnp.float32) > 0


def _weighted_mean(losses: Array, counts: Array, weight: Array | None) -> Float[Array, ""]:
    """Average per-comparison losses; zero where no weight is left."""
    if weight is None:
        return masked.mean(losses, counts)
    counts = counts & _counted(losses.shape, weight)
    weights = masked.fill(weight, counts)
    total = weights.sum()
    return (weights * masked.fill(losses, counts)).sum() / jnp.where(total > 0, total, 1.0)
