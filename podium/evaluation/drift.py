"""Measure how far a policy has moved from its reference, and how likely its answers are to the reference."""

import numpy as np
from numpy.typing import ArrayLike

from podium.evaluation import statistics
from podium.evaluation.statistics import Estimate


def kl(
    policy_logprobs: ArrayLike, reference_logprobs: ArrayLike, tokens: ArrayLike, confidence: float
) -> tuple[Estimate, Estimate]:
    """Estimate KL(policy || reference) per answer and per token from answers that the policy sampled.

    Arguments are [prompts, generations]: log-probabilities summed over each answer, and its tokens. The estimator is
    k1, log policy - log reference: unbiased for answers drawn from the whole distribution at the temperature of the
    log-probabilities. Single answers may be negative, and so may an estimate near zero.
    """
    ratio = np.asarray(policy_logprobs, np.float64) - np.asarray(reference_logprobs, np.float64)
    counts = np.asarray(tokens, np.float64)
    per_answer = statistics.mean(ratio.mean(axis=1), confidence)
    return per_answer, statistics.ratio(ratio.sum(axis=1), counts.sum(axis=1), confidence)


def perplexity(logprobs: ArrayLike, tokens: ArrayLike, confidence: float) -> Estimate:
    """Return exp(-log-probability per token) over all answers; arguments [prompts, generations] as in `kl`.

    Under the reference model it is a proxy for fluency: text that the reference finds odd has a high one. Text that
    repeats itself has a low one, so read it beside the repetition rate.
    """
    result = statistics.ratio(
        -np.asarray(logprobs, np.float64).sum(axis=1), np.asarray(tokens, np.float64).sum(axis=1), confidence
    )
    value, low, high = (None if end is None else float(np.exp(end)) for end in result[:3])
    return Estimate(value, low, high, result.units)
