"""Estimate means, proportions, ratios and correlations, each with an interval.

Every interval is a closed formula: no resampling, so no seed and the same figures on every machine. The t interval of
a mean needs only that the mean is near normal, which a few dozen prompts give; a percentile bootstrap of the same data
agrees there and covers less below that (Hesterberg 2015, "What Teachers Should Know About the Bootstrap", table 1).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

Floats = NDArray[np.float64]


class Estimate(NamedTuple):
    """A value, the ends of its interval and the number of units behind it.

    The ends are None where the data allow no interval (fewer than two units, say), the value where they allow nothing.
    """

    value: float | None
    low: float | None
    high: float | None
    units: int


def floats(values: ArrayLike, name: str = "values") -> Floats:
    """Convert to a one-dimensional float64 array; raises ValueError for another shape, or a NaN or infinite number."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1:
        raise ValueError(f"{name} must have one dimension, not shape {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name}: {int((~np.isfinite(array)).sum())} of {array.size} numbers are NaN or infinite")
    return array


def wilson(successes: float, count: float, confidence: float) -> Estimate:
    """Estimate a proportion with Wilson's score interval (1927), which stays in [0, 1] and is right near its ends.

    `successes` may be fractional (ties count half): a score in [0, 1] with mean p has a variance of at most p (1 - p),
    so that the interval then covers at least as often as it claims. `count` may be an effective number.
    """
    if count <= 0:
        return Estimate(None, None, None, 0)
    z = normal(confidence)
    p = successes / count
    center = (p + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * np.sqrt(p * (1 - p) / count + z * z / (4 * count * count))
    # The formula touches 0 and 1 exactly there; rounding must not carry an end past the value.
    return Estimate(p, float(min(max(center - half, 0.0), p)), float(max(min(center + half, 1.0), p)), round(count))


def proportion(scores: ArrayLike, confidence: float, *, groups: Sequence[object] | None = None) -> Estimate:
    """Average scores in [0, 1] (1 right, 0 wrong, a half for a tie) with Wilson's interval.

    Scores of one group (the pairs of one prompt, say) are not independent: the number of scores is then divided by
    the design effect, the clustered variance of the mean over the simple one (Kish 1965), if that is above 1.
    """
    values = floats(scores, "scores")
    if values.size == 0:
        return Estimate(None, None, None, 0)
    mean = float(values.mean())
    effective = float(values.size)
    simple = float(((values - mean) ** 2).mean()) / values.size
    if groups is not None and simple > 0:
        _, index = np.unique(np.asarray([str(group) for group in groups]), return_inverse=True)
        totals = np.bincount(index, weights=values - mean)
        clustered = float((totals**2).sum()) / values.size**2
        effective /= max(1.0, clustered / simple)
    return wilson(mean * effective, effective, confidence)._replace(units=values.size)


def mean(values: ArrayLike, confidence: float) -> Estimate:
    """Average independent values with Student's t interval."""
    array = floats(values)
    if array.size == 0:
        return Estimate(None, None, None, 0)
    center = float(array.mean())
    if array.size == 1:
        return Estimate(center, None, None, 1)
    half = student(confidence, array.size - 1) * float(array.std(ddof=1)) / np.sqrt(array.size)
    return Estimate(center, float(center - half), float(center + half), array.size)


def mean_difference(after: ArrayLike, before: ArrayLike, confidence: float) -> Estimate:
    """Average `after - before` over units measured twice, with the paired t interval: what units share cancels."""
    later, earlier = floats(after, "after"), floats(before, "before")
    if later.shape != earlier.shape:
        raise ValueError(f"paired values must have equal lengths, not {later.size} and {earlier.size}")
    return mean(later - earlier, confidence)


def share_difference(after: Estimate, before: Estimate) -> Estimate:
    """Subtract two shares of the same units, each with its Wilson interval (Newcombe 1998, method 10).

    The interval stays in [-1, 1] and has a width even where one side is 0 of n or n of n, which that of the normal
    approximation has not. It ignores that both sides answered the same prompts: somewhat too wide where they agree.
    """
    if after.value is None or before.value is None:
        return Estimate(None, None, None, 0)
    value = after.value - before.value
    if after.low is None or after.high is None or before.low is None or before.high is None:
        return Estimate(value, None, None, after.units)
    low = value - float(np.hypot(after.value - after.low, before.high - before.value))
    high = value + float(np.hypot(after.high - after.value, before.value - before.low))
    return Estimate(value, low, high, after.units)


def jackknife(value: float, without: ArrayLike, confidence: float) -> Estimate:
    """Give `value` the interval that its values without each unit in turn imply (Efron and Stein 1981), by Student's t.

    For figures that are no mean over units, such as the number of different words.
    """
    left = floats(without, "values without one unit")
    if left.size < 2:
        return Estimate(value, None, None, left.size)
    error = float(np.sqrt((left.size - 1) / left.size * ((left - left.mean()) ** 2).sum()))
    half = student(confidence, left.size - 1) * error
    return Estimate(value, value - half, value + half, left.size)


def ratio(numerators: ArrayLike, denominators: ArrayLike, confidence: float) -> Estimate:
    """Estimate sum(numerators) / sum(denominators) over independent units: a mean per token, tokens grouped in answers.

    Interval by linearisation (Cochran 1977, chapter 6): the standard error is that of the mean of a - R b, over mean b.
    """
    a, b = floats(numerators, "numerators"), floats(denominators, "denominators")
    if b.sum() <= 0:
        return Estimate(None, None, None, 0)
    value = float(a.sum() / b.sum())
    if a.size == 1:
        return Estimate(value, None, None, 1)
    error = float((a - value * b).std(ddof=1)) / np.sqrt(a.size) / float(b.mean())
    half = float(student(confidence, a.size - 1) * error)
    return Estimate(value, value - half, value + half, a.size)


def spearman(x: ArrayLike, y: ArrayLike, confidence: float) -> Estimate:
    """Correlate ranks (ties share their mean rank); no value where either side is constant.

    Interval by Fisher's z with the standard error sqrt((1 + r^2 / 2) / (n - 3)) of Bonett and Wright (2000).
    """
    left, right = _ranks(floats(x, "x")), _ranks(floats(y, "y"))
    if left.size < 2 or np.ptp(left) == 0 or np.ptp(right) == 0:
        return Estimate(None, None, None, left.size)
    r = float(np.clip(np.corrcoef(left, right)[0, 1], -1.0, 1.0))
    if left.size <= 3 or abs(r) == 1.0:
        return Estimate(r, None, None, left.size)
    half = normal(confidence) * np.sqrt((1 + r * r / 2) / (left.size - 3))
    return Estimate(r, float(np.tanh(np.arctanh(r) - half)), float(np.tanh(np.arctanh(r) + half)), left.size)


def sign_test(first: ArrayLike, second: ArrayLike) -> float:
    """Test whether two judges of the same items do equally well; returns the exact two-sided p-value.

    On right/wrong outcomes this is McNemar's exact test (1947): a binomial test on the items where the two differ.
    A judge that cannot decide scores a half, which counts as worse than right and better than wrong.
    """
    difference = floats(first, "first") - floats(second, "second")
    better, worse = int((difference > 0).sum()), int((difference < 0).sum())
    if better + worse == 0:
        return 1.0
    return min(1.0, 2 * float(special.bdtr(min(better, worse), better + worse, 0.5)))


# By scipy.special: scipy.stats, which only wraps it here, takes a second to import, in every stage that trains.
def normal(confidence: float) -> float:
    """Return the half width of the interval, in standard errors, of a normal distribution."""
    return float(special.ndtri(0.5 + confidence / 2))


def student(confidence: float, freedom: int) -> float:
    """Return the half width of the interval, in standard errors, of Student's t distribution."""
    return float(special.stdtrit(freedom, 0.5 + confidence / 2))


def _ranks(values: Floats) -> Floats:
    """Rank from 1; ties share their mean rank."""
    _, index, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[index], np.float64)
