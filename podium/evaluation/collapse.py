"""Measure signs that a policy collapsed: answers that open alike, repeat one another, copy the prompt, lose variety.

A reward model that likes one phrase gives a gain, a win rate and fluent text to a policy that says nothing else. Each
figure is taken of both policies' answers to the same prompts; `podium.evaluation.signs` says which rise is a sign.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from podium.evaluation import statistics, text
from podium.evaluation.statistics import Estimate
from podium.evaluation.text import Gram

Texts = Sequence[Sequence[str]]  # [prompts, generations]

OPENING_WORDS = 3
REPETITION_N = 4
DISTINCT_N = 2
COPIED = 0.5  # an answer copies its prompt when so much of its 4-word groups stand there

PHRASE_WORDS = 3
PHRASE_SHARE = 0.40  # so many tuned answers hold the phrase ...
PHRASE_RATIO = 4.0  # ... and at least so many times fewer untrained ones
_SHOWN_CHARACTERS = 60


def measure(prompts: Sequence[str], baseline: Texts, tuned: Texts, confidence: float) -> dict[str, Any]:
    """Measure both sides; shares count each prompt once, whatever its number of answers.

    Keys: opening (baseline, tuned, change, and words: {baseline, tuned}, the most common first three words of each);
    duplicates, prompt_copies, repetition (baseline, tuned, change); distinct (the same, over answers cut to equal
    length, and grams, their number on each side); phrase (words, baseline, tuned, change) or null. Estimates are
    objects of value, low, high, units.
    """
    return {
        "opening": _openings(baseline, tuned, confidence),
        "duplicates": _shares(_duplicated(baseline), _duplicated(tuned), confidence),
        "prompt_copies": _shares(_copies(prompts, baseline), _copies(prompts, tuned), confidence),
        "repetition": _shares(_repetition(baseline), _repetition(tuned), confidence),
        "distinct": distinct(baseline, tuned, confidence),
        "phrase": shared_phrase(baseline, tuned, confidence),
    }


def distinct(baseline: Texts, tuned: Texts, confidence: float) -> dict[str, Any]:
    """Divide different word pairs by all word pairs, on both sides over the same number of words at the same places.

    The share falls with the amount of text, so that answers that only became shorter would look more varied. Of two
    answers to one prompt, in the order they were drawn, the longer is cut to the words of the shorter. Intervals by
    the jackknife over prompts.
    """
    sides: list[list[list[Gram]]] = [[], []]
    for before, after in zip(baseline, tuned, strict=True):
        grams: list[list[Gram]] = [[], []]
        for pair in zip(before, after, strict=True):
            tokens = [text.words(one) for one in pair]
            length = min(map(len, tokens))
            for side, one in zip(grams, tokens, strict=True):
                side += text.ngrams(one[:length], DISTINCT_N)
        for rows, result in zip(sides, grams, strict=True):
            rows.append(result)
    (first, without_first), (second, without_second) = map(_distinct_share, sides)
    count = sum(map(len, sides[0]))
    if first is None or second is None:
        nothing = Estimate(None, None, None, 0)._asdict()
        return {"baseline": nothing, "tuned": nothing, "change": nothing, "grams": count}
    return {
        "baseline": statistics.jackknife(first, without_first, confidence)._asdict(),
        "tuned": statistics.jackknife(second, without_second, confidence)._asdict(),
        "change": statistics.jackknife(second - first, without_second - without_first, confidence)._asdict(),
        "grams": count,
    }


def shared_phrase(baseline: Texts, tuned: Texts, confidence: float) -> dict[str, Any] | None:
    """Find the word or phrase that most tuned answers took up and untrained ones do not have; None without one.

    Up to three words, anywhere in an answer. The interval is at a level that allows for the number of phrases looked
    at (Bonferroni): all that a fifth of the answers of both sides together hold.
    """
    shares = [_phrase_shares(side) for side in (baseline, tuned)]
    before, after = shares
    common = [gram for gram in after if (before.get(gram, 0.0) + after[gram]) / 2 >= PHRASE_SHARE / 2]
    candidates = [
        gram for gram in common if after[gram] >= PHRASE_SHARE and after[gram] >= PHRASE_RATIO * before.get(gram, 0.0)
    ]
    if not candidates:
        return None
    # Of phrases within one another the longest says most.
    best = max(candidates, key=lambda gram: (round(after[gram] - before.get(gram, 0.0), 9), len(gram), gram))
    strict = 1.0 - (1.0 - confidence) / len(common)
    old, new = (statistics.wilson(share.get(best, 0.0) * len(tuned), len(tuned), strict) for share in shares)
    change = statistics.share_difference(new, old)
    if change.low is None or change.low <= 0:
        return None
    result = {"baseline": old, "tuned": new, "change": change}
    return {"words": " ".join(best), **{name: estimate._asdict() for name, estimate in result.items()}}


def _openings(baseline: Texts, tuned: Texts, confidence: float) -> dict[str, Any]:
    names, shares = [], []
    for side in (baseline, tuned):
        keys = [[text.opening(answer, OPENING_WORDS) for answer in row] for row in side]
        # Ties go to the opening that came first.
        most, _ = Counter(key for row in keys for key, _ in row).most_common(1)[0]
        shares.append([float(np.mean([key == most for key, _ in row])) for row in keys])
        names.append(next(shown for row in keys for key, shown in row if key == most)[:_SHOWN_CHARACTERS])
    return {**_shares(shares[0], shares[1], confidence), "words": dict(zip(("baseline", "tuned"), names, strict=True))}


def _duplicated(side: Texts) -> list[float]:
    """Return of each prompt the share of its answers that are also given, word for word, to another prompt."""
    keys = [[" ".join(answer.casefold().split()) for answer in row] for row in side]
    prompts_with = Counter(key for row in keys for key in set(row))
    return [float(np.mean([prompts_with[key] > 1 for key in row])) for row in keys]


def _copies(prompts: Sequence[str], side: Texts) -> list[float]:
    return [
        float(np.mean([text.copied(answer, prompt) >= COPIED for answer in row]))
        for prompt, row in zip(prompts, side, strict=True)
    ]


def _repetition(side: Texts) -> list[float]:
    return [float(np.mean([text.repetition(answer, REPETITION_N) for answer in row])) for row in side]


def _shares(before: list[float], after: list[float], confidence: float) -> dict[str, Any]:
    old, new = (statistics.proportion(values, confidence) for values in (before, after))
    result = {"baseline": old, "tuned": new, "change": statistics.share_difference(new, old)}
    return {name: estimate._asdict() for name, estimate in result.items()}


def _distinct_share(side: list[list[Gram]]) -> tuple[float | None, np.ndarray]:
    """Return the share of different grams among all, and what it is without each prompt in turn."""
    counts = Counter(gram for grams in side for gram in grams)
    total = sum(counts.values())
    if not total:
        return None, np.zeros(0)
    without = []
    for grams in side:
        own = Counter(grams)
        lost = sum(counts[gram] == number for gram, number in own.items())
        without.append((len(counts) - lost) / max(total - len(grams), 1))
    return len(counts) / total, np.array(without)


def _phrase_shares(side: Texts) -> dict[Gram, float]:
    """Return of every phrase the share of prompts whose answers hold it, an answer of several by its part."""
    result: dict[Gram, float] = {}
    for row in side:
        for answer in row:
            tokens = text.plain_words(answer)
            for gram in {gram for n in range(1, PHRASE_WORDS + 1) for gram in text.ngrams(tokens, n)}:
                result[gram] = result.get(gram, 0.0) + 1 / len(row) / len(side)
    return result
