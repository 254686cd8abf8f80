"""Measure repetition in texts, on words and punctuation marks, so that figures do not depend on a tokenizer.

Of scripts that put no spaces between words, Chinese and Japanese, a character counts as a word.
"""

import re
from collections.abc import Sequence

_UNSPACED = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+|[^\w\s]")
_PLAIN = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+(?:['\u2019][^\W{_UNSPACED}]+)*")

Gram = tuple[str, ...]


def words(text: str) -> list[str]:
    """Split into lower-case words and single punctuation marks."""
    return _WORD.findall(text.lower())


def plain_words(text: str) -> list[str]:
    """Split into lower-case words without punctuation; an apostrophe inside a word belongs to it (I'll, d'accord)."""
    return [word.replace("\u2019", "'") for word in _PLAIN.findall(text.lower())]


def opening(text: str, count: int = 3) -> tuple[Gram, str]:
    """Return the first words of a text, lower-case to compare by and as written; a shorter text is its own opening.

    Both hold words alone, nothing that could act on a display.
    """
    shown = [result.group() for _, result in zip(range(count), _PLAIN.finditer(text), strict=False)]
    return tuple(word.replace("\u2019", "'").lower() for word in shown), " ".join(shown)


def repetition(text: str, n: int = 4) -> float:
    """Return the share of n-grams of one text that stood in it before (seq-rep-n, Welleck et al. 2020); 0 if none."""
    grams = ngrams(words(text), n)
    return 1.0 - len(set(grams)) / len(grams) if grams else 0.0


def copied(text: str, source: str, n: int = 4) -> float:
    """Return the share of n-grams of a text that stand in another one; 0 if it has none."""
    grams, known = ngrams(words(text), n), set(ngrams(words(source), n))
    return sum(gram in known for gram in grams) / len(grams) if grams else 0.0


def ngrams(tokens: Sequence[str], n: int) -> list[Gram]:
    """List the runs of n neighbours, repeated ones included."""
    return [tuple(tokens[start : start + n]) for start in range(len(tokens) - n + 1)]
