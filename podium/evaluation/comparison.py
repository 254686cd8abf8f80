"""Put all measures of a tuned policy against its baseline into one JSON-ready mapping."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from podium.evaluation import best_of, collapse, drift, statistics, winrate
from podium.evaluation.statistics import Estimate, Floats

# What the metrics artifact calls the figures of `collapse.measure`.
_COLLAPSE = {
    "opening": "common_opening",
    "duplicates": "duplicates",
    "prompt_copies": "prompt_copies",
    "repetition": "repetition",
    "distinct": f"distinct_{collapse.DISTINCT_N}",
}
_ENDS = ("_gain", "_gain_low", "_gain_high")


@dataclass(frozen=True)
class Answers:
    """One policy's answers to the prompts, as nested lists or arrays [prompts, generations].

    texts, rewards; tokens counts the end token; finished: an end token came before the limit; reference_logprobs: of
    the whole answer under the reference model at temperature 1.
    """

    texts: list[list[str]]
    rewards: Floats
    tokens: Floats
    finished: Floats
    reference_logprobs: Floats


@dataclass(frozen=True)
class Drift:
    """Log-probabilities [prompts, generations] of the tuned answers at the sampling temperature."""

    policy_logprobs: Floats
    reference_logprobs: Floats


def compare(
    prompts: Sequence[str], baseline: Answers, tuned: Answers, moved: Drift, confidence: float
) -> dict[str, Any]:
    """Measure both policies and their difference; the prompt, of which `prompts` has the text, is the unit everywhere.

    Keys: prompts, generations, confidence; reward (baseline, tuned, gain); win_rate (value, low, high, units, wins,
    ties, losses); best_of (`best_of.compare`, or null); equal_length (win_rate, gain, extrapolated); kl (answer,
    token); length (baseline, tuned, change, ratio, correlation_baseline, correlation_tuned); finish_rate, perplexity
    (baseline, tuned); collapse (`collapse.measure`). Estimates are objects of value, low, high, units.
    """
    count, generations = tuned.rewards.shape
    reward_gain = _rows(tuned.rewards) - _rows(baseline.rewards)
    longer = _rows(tuned.tokens) - _rows(baseline.tokens)
    scores = winrate.prompt_scores(tuned.rewards, baseline.rewards)
    kl_answer, kl_token = drift.kl(moved.policy_logprobs, moved.reference_logprobs, tuned.tokens, confidence)
    sides = {"baseline": baseline, "tuned": tuned}

    def both(measure: Any) -> dict[str, Any]:
        return {name: measure(side)._asdict() for name, side in sides.items()}

    return {
        "prompts": count,
        "generations": generations,
        "confidence": confidence,
        "reward": {
            **both(lambda side: statistics.mean(_rows(side.rewards), confidence)),
            "gain": statistics.mean(reward_gain, confidence)._asdict(),
        },
        "win_rate": {**winrate.win_rate(scores, confidence)._asdict(), **_counts(scores)},
        "best_of": best_of.compare(baseline.rewards, tuned.rewards, confidence),
        "equal_length": _equal_length(scores, reward_gain, longer, confidence),
        "kl": {"answer": kl_answer._asdict(), "token": kl_token._asdict()},
        "length": {
            **both(lambda side: statistics.mean(_rows(side.tokens), confidence)),
            "change": statistics.mean(longer, confidence)._asdict(),
            "ratio": float(tuned.tokens.mean() / baseline.tokens.mean()),
            "correlation_baseline": _correlation(baseline, confidence)._asdict(),
            "correlation_tuned": _correlation(tuned, confidence)._asdict(),
        },
        "finish_rate": both(lambda side: statistics.proportion(_rows(side.finished), confidence)),
        "perplexity": both(lambda side: drift.perplexity(side.reference_logprobs, side.tokens, confidence)),
        "collapse": collapse.measure(prompts, baseline.texts, tuned.texts, confidence),
    }


def flatten(results: dict[str, Any]) -> dict[str, float]:
    """Name the figures that a metrics artifact shows: flat, finite numbers only."""
    length, gain, wins = results["length"], results["reward"]["gain"], results["win_rate"]
    figures: dict[str, float | None] = {
        "num_prompts": results["prompts"],
        "reward_gain": gain["value"],
        "reward_gain_low": gain["low"],
        "reward_gain_high": gain["high"],
        "win_rate": wins["value"],
        "win_rate_low": wins["low"],
        "win_rate_high": wins["high"],
        "win_rate_equal_length": results["equal_length"]["win_rate"]["value"],
        "reward_gain_equal_length": results["equal_length"]["gain"]["value"],
        "kl": results["kl"]["answer"]["value"],
        "kl_low": results["kl"]["answer"]["low"],
        "kl_high": results["kl"]["answer"]["high"],
        "kl_per_token": results["kl"]["token"]["value"],
        "length_ratio": length["ratio"],
    }
    for side in ("baseline", "tuned"):
        figures[f"reward_{side}"] = results["reward"][side]["value"]
        for name in ("length", "finish_rate", "perplexity"):
            figures[f"{name}_{side}"] = results[name][side]["value"]
        for name, label in _COLLAPSE.items():
            figures[f"{label}_{side}"] = results["collapse"][name][side]["value"]
    if best := results["best_of"]:
        name = f"best_of_{best['n']}"
        figures[f"{name}_kl"] = best["kl"]
        figures |= {name + end: best["gain"][of] for end, of in zip(_ENDS, ("value", "low", "high"), strict=True)}
    return {name: float(value) for name, value in figures.items() if value is not None}


def _rows(values: Floats) -> Floats:
    """Average over the generations of each prompt."""
    return np.asarray(np.asarray(values, np.float64).mean(axis=1), np.float64)


def _correlation(side: Answers, confidence: float) -> Estimate:
    """Correlate reward with length over all answers; with several per prompt the interval is somewhat too narrow."""
    return statistics.spearman(side.rewards.reshape(-1), side.tokens.reshape(-1), confidence)


def _counts(scores: Floats) -> dict[str, int]:
    return {
        "wins": int((scores > 0.5).sum()),
        "ties": int((scores == 0.5).sum()),
        "losses": int((scores < 0.5).sum()),
    }


def _equal_length(scores: Floats, gain: Floats, longer: Floats, confidence: float) -> dict[str, Any]:
    """Both figures at equal length; extrapolated where (nearly) all tuned answers are longer, or all are shorter."""
    overlap = min(float((longer >= 0).mean()), float((longer <= 0).mean()))
    return {
        "win_rate": winrate.win_rate_at_equal_length(scores, longer, confidence)._asdict(),
        "gain": winrate.gain_at_equal_length(gain, longer, confidence)._asdict(),
        "extrapolated": bool(overlap < 0.05),
    }
