"""What a policy has to beat: the untrained model, drawn n times, with the answer that the reward model likes best."""

from math import comb, log
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from podium.evaluation import statistics
from podium.evaluation.statistics import Floats


def expected_best(rewards: ArrayLike, n: int) -> Floats:
    """Estimate each prompt's expected best reward of n answers from K >= n of them; rewards [prompts, K].

    The mean of the maximum over all choices of n of the K answers: unbiased, and for n = K the maximum itself (the
    estimator that Chen et al. 2021 use for pass@k). Raises ValueError for fewer than n answers.
    """
    ordered = np.sort(np.asarray(rewards, np.float64), axis=1)
    answers = ordered.shape[1]
    if not 1 <= n <= answers:
        raise ValueError(f"the best of {n} cannot be estimated from {answers} answers to a prompt")
    # The answer at place i, from 0, is the best of those choices whose others all stand before it.
    weights = np.array([comb(place, n - 1) for place in range(answers)]) / comb(answers, n)
    return np.asarray(ordered @ weights, np.float64)


def kl_bound(n: int) -> float:
    """Bound KL(best of n || model) in nats: log n - (n - 1) / n (Stiennon et al. 2020, appendix G.3).

    Equal where no two answers are alike; below that otherwise (Beirami et al. 2024).
    """
    return log(n) - (n - 1) / n


def compare(baseline: ArrayLike, tuned: ArrayLike, confidence: float, *, n: int = 2) -> dict[str, Any] | None:
    """Set the tuned policy's gain beside best-of-n's; None where the baseline has fewer than n answers to a prompt.

    Arguments are rewards [prompts, generations]. Keys: n; kl (a bound, nats per answer); reward, gain (over the mean
    of the baseline's answers) and ppo_ahead (the tuned policy's mean reward less best-of-n's), estimates over prompts.
    """
    before, after = np.asarray(baseline, np.float64), np.asarray(tuned, np.float64)
    if before.shape[1] < n:
        return None
    best = expected_best(before, n)
    return {
        "n": n,
        "kl": kl_bound(n),
        "reward": statistics.mean(best, confidence)._asdict(),
        "gain": statistics.mean(best - before.mean(axis=1), confidence)._asdict(),
        "ppo_ahead": statistics.mean(after.mean(axis=1) - best, confidence)._asdict(),
    }
