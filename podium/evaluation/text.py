"""Measure repetition in texts, on words and punctuation marks, so that figures do not depend on a tokenizer."""

import re
from collections.abc import Sequence

_WORD = re.compile(r"\w+|[^\w\s]")


def words(text: str) -> list[str]:
    """Split into lower-case words and single punctuation marks."""
    return _WORD.findall(text.lower())


def distinct_n(texts: Sequence[str], n: int) -> float | None:
    """Divide the different n-grams of all texts by all their n-grams (Li et al. 2016); None where there is none.

    It falls with the amount of text: compare only sets of like size.
    """
    grams = [gram for text in texts for gram in _ngrams(text, n)]
    return len(set(grams)) / len(grams) if grams else None


def repetition(text: str, n: int = 4) -> float:
    """Return the share of n-grams of one text that stood in it before (seq-rep-n, Welleck et al. 2020); 0 if none."""
    grams = _ngrams(text, n)
    return 1.0 - len(set(grams)) / len(grams) if grams else 0.0


def _ngrams(text: str, n: int) -> list[tuple[str, ...]]:
    tokens = words(text)
    return [tuple(tokens[start : start + n]) for start in range(len(tokens) - n + 1)]
