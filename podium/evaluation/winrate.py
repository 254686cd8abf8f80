"""Compare two policies by the rewards of their answers to the same prompts. Arrays are [prompts, generations]."""

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit

from podium.evaluation import statistics
from podium.evaluation.statistics import Estimate, Floats, floats

# Spread of the normal prior on both coefficients of the length regression, in logits: too weak to move a fit with a
# few dozen prompts, and enough to keep it finite when every answer wins (Gelman et al. 2008 use the same scale).
PRIOR_SCALE = 2.5


def prompt_scores(tuned: ArrayLike, baseline: ArrayLike) -> Floats:
    """Score each prompt with the share of (tuned, baseline) answer pairs that the tuned one wins; ties count half.

    All generations x generations pairs of a prompt are compared: pairing them by number would add noise.
    """
    difference = np.asarray(tuned, np.float64)[:, :, None] - np.asarray(baseline, np.float64)[:, None, :]
    return np.asarray(((np.sign(difference) + 1.0) / 2.0).mean(axis=(1, 2)), dtype=np.float64)


def win_rate(scores: ArrayLike, confidence: float) -> Estimate:
    """Average the prompts' scores with Wilson's interval; prompts are the independent units."""
    return statistics.proportion(scores, confidence)


def win_rate_at_equal_length(scores: ArrayLike, length_difference: ArrayLike, confidence: float) -> Estimate:
    """Estimate the win rate that would remain if both answers of every prompt were equally long.

    Logistic regression logit p = a + b tanh(d / std(d)) on the length difference d, read off at d = 0, as in
    length-controlled AlpacaEval (Dubois et al. 2024, arXiv 2404.04475), without its term per instruction: the scores
    of one pair of policies cannot identify it. Interval: normal approximation around the most probable a.
    """
    y, d = floats(scores, "scores"), floats(length_difference, "length difference")
    spread = float(d.std())
    if y.size < 3 or (spread == 0 and d.any()):
        return Estimate(None, None, None, y.size)
    x = np.stack([np.ones_like(d), np.tanh(d / spread) if spread else np.zeros_like(d)], axis=1)
    coefficients, precision = np.zeros(2), np.eye(2)
    for _ in range(100):
        p = expit(x @ coefficients)
        precision = (x.T * (p * (1 - p))) @ x + np.eye(2) / PRIOR_SCALE**2
        step = np.linalg.solve(precision, x.T @ (y - p) - coefficients / PRIOR_SCALE**2)
        # A full Newton step can overshoot where almost all scores agree; a bounded one still converges (concave).
        coefficients = coefficients + np.clip(step, -1.0, 1.0)
        if np.abs(step).max() < 1e-12:
            break
    half = statistics.normal(confidence) * float(np.sqrt(np.linalg.inv(precision)[0, 0]))
    a = float(coefficients[0])
    return Estimate(float(expit(a)), float(expit(a - half)), float(expit(a + half)), y.size)


def gain_at_equal_length(gain: ArrayLike, length_difference: ArrayLike, confidence: float) -> Estimate:
    """Estimate the reward gain at equal length: the intercept of a straight line of gain on length difference.

    Interval with the HC3 standard error (MacKinnon and White 1985), which holds when the spread of the gain changes
    with length.
    """
    y, d = floats(gain, "gain"), floats(length_difference, "length difference")
    if y.size < 4 or (np.ptp(d) == 0 and d.any()):
        return Estimate(None, None, None, y.size)
    if np.ptp(d) == 0:
        return statistics.mean(y, confidence)
    x = np.stack([np.ones_like(d), d], axis=1)
    inverse = np.linalg.inv(x.T @ x)
    coefficients = inverse @ x.T @ y
    leverage = np.einsum("ij,jk,ik->i", x, inverse, x)
    # A lone length that pins the line has leverage 1 and residual 0.
    scaled = np.divide(y - x @ coefficients, 1 - leverage, out=np.zeros_like(y), where=leverage < 1 - 1e-12)
    covariance = inverse @ (x.T * scaled**2) @ x @ inverse
    half = statistics.student(confidence, y.size - 2) * float(np.sqrt(covariance[0, 0]))
    value = float(coefficients[0])
    return Estimate(value, value - half, value + half, y.size)
