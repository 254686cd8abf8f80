"""Report how well scores agree with held-out preferences, beside the rule that the longer answer wins."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit

from podium.evaluation import statistics
from podium.evaluation.statistics import Estimate, Floats, floats

CALIBRATION_BINS = 10
HISTOGRAM_BINS = 24


def report(
    chosen_scores: ArrayLike,
    rejected_scores: ArrayLike,
    chosen_lengths: ArrayLike,
    rejected_lengths: ArrayLike,
    confidence: float,
    *,
    chosen_characters: ArrayLike | None = None,
    rejected_characters: ArrayLike | None = None,
    groups: Sequence[object] | None = None,
) -> dict[str, Any]:
    """Judge scores of held-out pairs; returns plain JSON values.

    Scores must be in the units of the training loss (before gain and bias), or calibration means nothing. Lengths
    are tokens. `groups` names the prompt of each pair where one prompt gives several. Raises ValueError for unequal
    sizes, no pair, or a score that is not finite.

    Keys: pairs, accuracy, accuracy_above_length_rule and margin (objects of value, low, high, units), longer_wins
    (tokens[, characters]: value, low, high, units, p_value against the model), best_length_rule (rule, value), loss,
    brier, calibration (error, bins: low, high, confidence, accuracy, accuracy_low, accuracy_high, count), margins
    (edges, counts), length_correlation, confidence.
    """
    chosen, rejected = _pair(chosen_scores, rejected_scores, "scores")
    if chosen.size == 0:
        raise ValueError("no pair to report on")
    lengths = {"tokens": _pair(chosen_lengths, rejected_lengths, "lengths")}
    if chosen_characters is not None and rejected_characters is not None:
        lengths["characters"] = _pair(chosen_characters, rejected_characters, "characters")
    margin = chosen - rejected
    right = outcomes(margin)
    longer = {name: outcomes(long - short) for name, (long, short) in lengths.items()}
    # Where good answers are short, the longer-wins rule is easily beaten: the bar is the better of both directions.
    rule, baseline = _better_direction(longer["tokens"])
    return {
        "pairs": int(margin.size),
        "confidence": confidence,
        "accuracy": statistics.proportion(right, confidence, groups=groups)._asdict(),
        "longer_wins": {name: _rule(scores, right, confidence, groups) for name, scores in longer.items()},
        "best_length_rule": {"rule": rule, "value": float(baseline.mean())},
        "accuracy_above_length_rule": _difference(right, baseline, confidence, groups)._asdict(),
        "margin": statistics.mean(margin, confidence)._asdict(),
        "loss": float(np.logaddexp(0.0, -margin).mean()),
        "brier": float((expit(-margin) ** 2).mean()),
        "calibration": calibration(margin, confidence),
        "margins": histogram(margin),
        "length_correlation": statistics.spearman(
            np.concatenate([chosen, rejected]), np.concatenate(lengths["tokens"]), confidence
        )._asdict(),
    }


def accuracy(
    chosen_scores: ArrayLike,
    rejected_scores: ArrayLike,
    confidence: float,
    *,
    groups: Sequence[object] | None = None,
) -> Estimate:
    """Share of the pairs in which the chosen response scores higher, ties half; `groups` as in `report`."""
    chosen, rejected = _pair(chosen_scores, rejected_scores, "scores")
    return statistics.proportion(outcomes(chosen - rejected), confidence, groups=groups)


def outcomes(margin: ArrayLike) -> Floats:
    """Score each pair 1 where the margin is positive, 0 where negative, a half where it is zero."""
    return (np.sign(floats(margin, "margin")) + 1.0) / 2.0


def calibration(margin: ArrayLike, confidence: float, *, bins: int = CALIBRATION_BINS) -> dict[str, Any]:
    """Compare how sure the scores are with how often they are right.

    Bradley-Terry: the probability that the chosen answer wins is the logistic of the margin. Which answer stands first
    is arbitrary, so each pair counts as the answer that the model prefers: sure with logistic(|margin|) in [1/2, 1],
    right or not. The error is the expected calibration error over equal-width bins (Naeini et al. 2015); it is biased
    upwards where bins hold few pairs, hence the counts and Wilson intervals.
    """
    margin = floats(margin, "margin")
    sure, right = expit(np.abs(margin)), outcomes(margin)
    edges = np.linspace(0.5, 1.0, bins + 1)
    index = np.clip(np.digitize(sure, edges) - 1, 0, bins - 1)
    rows, error = [], 0.0
    for number in range(bins):
        inside = index == number
        hit = statistics.proportion(right[inside], confidence)
        count, average = int(inside.sum()), float(sure[inside].mean()) if inside.any() else None
        if average is not None and hit.value is not None:
            error += count / margin.size * abs(average - hit.value)
        rows.append(
            {
                "low": float(edges[number]),
                "high": float(edges[number + 1]),
                "count": count,
                "confidence": average,
                "accuracy": hit.value,
                "accuracy_low": hit.low,
                "accuracy_high": hit.high,
            }
        )
    return {"error": error, "bins": rows}


def histogram(margin: ArrayLike, *, bins: int = HISTOGRAM_BINS) -> dict[str, list[float]]:
    """Count margins in equal bins around zero, so that no bin mixes right and wrong pairs; `bins` is even."""
    margin = floats(margin, "margin")
    reach = float(np.abs(margin).max(initial=0.0)) or 1.0
    # Not numpy's own edges: their middle is zero only up to rounding.
    edges = reach * (np.arange(-(bins // 2), bins // 2 + 1) / (bins // 2))
    counts, _ = np.histogram(margin, bins=edges)
    return {"edges": [float(edge) for edge in edges], "counts": [int(count) for count in counts]}


def _pair(chosen: ArrayLike, rejected: ArrayLike, name: str) -> tuple[Floats, Floats]:
    first, second = floats(chosen, f"chosen {name}"), floats(rejected, f"rejected {name}")
    if first.shape != second.shape:
        raise ValueError(f"{first.size} chosen {name} for {second.size} rejected {name}")
    return first, second


def _better_direction(longer: Floats) -> tuple[str, Floats]:
    return ("longer", longer) if longer.mean() >= 0.5 else ("shorter", 1.0 - longer)


def _rule(
    scores: Floats, right: Floats, confidence: float, groups: Sequence[object] | None
) -> Mapping[str, float | None]:
    estimate = statistics.proportion(scores, confidence, groups=groups)
    return {**estimate._asdict(), "p_value": statistics.sign_test(right, scores)}


def _difference(right: Floats, baseline: Floats, confidence: float, groups: Sequence[object] | None) -> Estimate:
    """Average the paired difference of two judges, per group where pairs are grouped."""
    difference = right - baseline
    if groups is None:
        return statistics.mean(difference, confidence)
    _, index = np.unique(np.asarray([str(group) for group in groups]), return_inverse=True)
    sums, counts = np.bincount(index, weights=difference), np.bincount(index)
    return statistics.ratio(sums, counts, confidence)._replace(units=difference.size)
