"""Slow, obvious twins of podium.losses: loops over Python floats in float64, sharing nothing with them."""

import itertools
import math
from collections.abc import Callable

import numpy as np

Rows = np.ndarray


def counted(x: Rows, mask: Rows) -> list[float]:
    """List the values at true positions."""
    return [float(value) for value, keep in zip(np.ravel(x), np.ravel(mask), strict=True) if keep]


def mean(x: Rows, mask: Rows) -> float:
    """Average what counts."""
    values = counted(x, mask)
    return sum(values) / len(values) if values else 0.0


def whiten(x: Rows, mask: Rows, shift_mean: bool, ddof: int) -> Rows:
    """Scale what counts to unit variance; zero elsewhere."""
    values = counted(x, mask)
    average = mean(x, mask)
    variance = sum((value - average) ** 2 for value in values) / max(len(values) - ddof, 1)
    result = np.zeros(np.shape(x))
    for place in zip(*np.nonzero(mask), strict=True):
        result[place] = (x[place] - average) / math.sqrt(variance + 1e-8) + (0.0 if shift_mean else average)
    return result


def log_softmax(logits: Rows, temperature: float) -> list[float]:
    """Return log-probabilities of one position."""
    scaled = [float(logit) / temperature for logit in logits]
    peak = max(scaled)
    log_total = peak + math.log(sum(math.exp(logit - peak) for logit in scaled))
    return [logit - log_total for logit in scaled]


def token_logprobs(logits: Rows, ids: Rows, temperature: float) -> Rows:
    """Pick the log-probability of each id."""
    result = np.zeros(np.shape(ids))
    for place in np.ndindex(result.shape):
        result[place] = log_softmax(logits[place], temperature)[ids[place]]
    return result


def entropy(logits: Rows, temperature: float) -> Rows:
    """Sum -p log p at each position."""
    result = np.zeros(np.shape(logits)[:-1])
    for place in np.ndindex(result.shape):
        result[place] = -sum(math.exp(log) * log for log in log_softmax(logits[place], temperature) if log > -math.inf)
    return result


def kl(logprob: float, ref_logprob: float, kind: str) -> float:
    """Estimate KL from one token."""
    ratio = math.exp(ref_logprob - logprob)
    return {"k1": -math.log(ratio), "k2": math.log(ratio) ** 2 / 2, "k3": ratio - 1 - math.log(ratio)}[kind]


def token_rewards(scores: Rows, logprobs: Rows, ref: Rows, mask: Rows, kl_coef: float, kind: str) -> Rows:
    """Charge every token for its KL and pay the score at the last one."""
    result = np.zeros(np.shape(logprobs))
    for row in range(len(scores)):
        places = [t for t in range(mask.shape[1]) if mask[row, t]]
        for t in places:
            result[row, t] = -kl_coef * kl(logprobs[row, t], ref[row, t], kind)
        if places:
            result[row, places[-1]] += scores[row]
    return result


def gae(rewards: Rows, values: Rows, mask: Rows, gamma: float, gae_lambda: float) -> tuple[Rows, Rows]:
    """Sum (gamma lambda)^k delta over the rest of each row, after taking out what does not count."""
    advantages, returns = np.zeros(np.shape(rewards)), np.zeros(np.shape(rewards))
    for row in range(len(rewards)):
        places = [t for t in range(mask.shape[1]) if mask[row, t]]
        reward, value = [float(rewards[row, t]) for t in places], [float(values[row, t]) for t in places] + [0.0]
        delta = [reward[t] + gamma * value[t + 1] - value[t] for t in range(len(places))]
        for t, place in enumerate(places):
            advantages[row, place] = sum((gamma * gae_lambda) ** (k - t) * delta[k] for k in range(t, len(places)))
            returns[row, place] = advantages[row, place] + value[t]
    return advantages, returns


def policy_loss(logprobs: Rows, old: Rows, advantages: Rows, mask: Rows, clip_range: float) -> dict[str, float]:
    """Average the worse of the free and the clipped surrogate."""
    losses, clips, ratios, logs = [], [], [], []
    for new, before, advantage in zip(*(counted(x, mask) for x in (logprobs, old, advantages)), strict=True):
        ratio = math.exp(new - before)
        free = -advantage * ratio
        clipped = -advantage * min(max(ratio, 1 - clip_range), 1 + clip_range)
        losses.append(max(free, clipped))
        clips.append(float(clipped > free))
        ratios.append(ratio)
        logs.append((new - before) ** 2 / 2)
    number = max(len(losses), 1)
    ratio = sum(ratios) / number
    variance = sum((value - ratio) ** 2 for value in ratios) / number
    named = {"loss": sum(losses), "approxkl": sum(logs), "clipfrac": sum(clips)}
    return {name: value / number for name, value in named.items()} | {"ratio": ratio, "ratio_var": variance}


def value_loss(values: Rows, old: Rows, returns: Rows, mask: Rows, clip_range: float) -> dict[str, float]:
    """Average half the worse of the free and the clipped squared error."""
    losses, clips, errors = [], [], []
    for value, before, target in zip(*(counted(x, mask) for x in (values, old, returns)), strict=True):
        limited = min(max(value, before - clip_range), before + clip_range)
        free, clipped = (value - target) ** 2, (limited - target) ** 2
        losses.append(max(free, clipped) / 2)
        clips.append(float(clipped > free))
        errors.append(free)
    number = max(len(losses), 1)
    return {"loss": sum(losses) / number, "clipfrac": sum(clips) / number, "error": sum(errors) / number}


def pair_loss(difference: float) -> float:
    """Return -log sigmoid."""
    return math.log1p(math.exp(-difference)) if difference > 0 else -difference + math.log1p(math.exp(difference))


def ranked_pairs_loss(scores: Rows, ranks: Rows, mask: Rows, margin: Rows) -> float:
    """Average within each list over untied pairs, then over lists that have one."""
    lists = []
    for row in range(len(scores)):
        places = [k for k in range(mask.shape[1]) if mask[row, k]]
        pairs = [(i, j) for i, j in itertools.permutations(places, 2) if ranks[row, i] < ranks[row, j]]
        losses = [pair_loss(scores[row, i] - scores[row, j] - margin[row]) for i, j in pairs]
        if losses:
            lists.append(sum(losses) / len(losses))
    return sum(lists) / max(len(lists), 1)


def plackett_luce(scores: list[float], ranks: list[int]) -> float:
    """Return the negative log-probability of one ranking, tied groups by Efron's rule, group by group."""
    loss = 0.0
    for rank in sorted(set(ranks)):
        group = [score for score, other in zip(scores, ranks, strict=True) if other == rank]
        rest = [score for score, other in zip(scores, ranks, strict=True) if other > rank]
        for k in range(len(group)):
            of_group = (1 - k / len(group)) * sum(math.exp(score) for score in group)
            loss += math.log(of_group + sum(math.exp(score) for score in rest))
        loss -= sum(group)
    return loss


def plackett_luce_loss(scores: Rows, ranks: Rows, mask: Rows) -> float:
    """Average over the lists of two or more."""
    lists = []
    for row in range(len(scores)):
        places = [k for k in range(mask.shape[1]) if mask[row, k]]
        if len(places) > 1:
            lists.append(plackett_luce([float(scores[row, k]) for k in places], [int(ranks[row, k]) for k in places]))
    return sum(lists) / max(len(lists), 1)


def centering_loss(scores: Rows, mask: Rows) -> float:
    """Average (s_i + s_j)^2 within each list, then over lists."""
    lists = []
    for row in range(len(scores)):
        squares = [(a + b) ** 2 for a, b in itertools.combinations(counted(scores[row], mask[row]), 2)]
        if squares:
            lists.append(sum(squares) / len(squares))
    return sum(lists) / max(len(lists), 1)


def slope(function: Callable[[Rows], float], x: Rows, step: float = 1e-5) -> Rows:
    """Differentiate by central differences, one entry at a time."""
    result = np.zeros(np.shape(x))
    for place in np.ndindex(result.shape):
        up, down = np.array(x, float), np.array(x, float)
        up[place] += step
        down[place] -= step
        result[place] = (function(up) - function(down)) / (2 * step)
    return result
