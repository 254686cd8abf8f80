"""Judge a data set: repeated rows, contradictions, the split, leakage, and whether the longer answer just wins."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from podium.data.collect import Located, Record
from podium.data.records import DemonstrationRecord, PreferenceRecord, digest, pairs
from podium.errors import UserError


@dataclass(frozen=True)
class Clash:
    """Two rows that should not both be there, and why the second is named."""

    file: str
    line: int
    first_file: str
    first_line: int


@dataclass(frozen=True)
class LongerWins:
    """Among pairs, the share in which the longer response is the better one; equal lengths count as half."""

    pairs: int
    by_characters: float
    by_tokens: float


def drop_duplicates(rows: Sequence[Located[Record]]) -> tuple[list[Located[Record]], list[Clash]]:
    """Keep the first of equal rows: same prompt, response, and for comparisons same responses, ranks and rater."""
    first: dict[str, Located[Record]] = {}
    repeated = []
    for row in rows:
        kept = first.setdefault(_content_key(row), row)
        if kept is not row:
            repeated.append(Clash(row.file, row.line, kept.file, kept.line))
    return list(first.values()), repeated


def _content_key(row: Located[Record]) -> str:
    record = row.record
    if isinstance(record, DemonstrationRecord):
        return digest(record.prompt, record.response)
    if not isinstance(record, PreferenceRecord):
        return digest(record.prompt)
    judged = sorted(zip(record.responses, record.ranks, strict=True))
    return digest(record.prompt, judged, record.rater)


def contradictions(rows: Iterable[Located[PreferenceRecord]]) -> list[Clash]:
    """List rows that rank two responses to one prompt against an earlier row; each pair of responses counts once."""
    first: dict[tuple[str, str, str], Located[PreferenceRecord]] = {}
    result: dict[frozenset[str], Clash] = {}
    for row in rows:
        for better, worse in pairs(row.record):
            winner, loser = (row.record.responses[place].strip() for place in (better, worse))
            first.setdefault((row.key, winner, loser), row)
            other = first.get((row.key, loser, winner))
            if other is not None:
                pair = frozenset({row.key, digest(winner), digest(loser)})
                result.setdefault(pair, Clash(row.file, row.line, other.file, other.line))
    return list(result.values())


def place_of(key: str) -> float:
    """Return the place of a prompt between 0 and 1, by its hash: the same whatever else the data holds."""
    return int(hashlib.sha256(key.encode()).hexdigest()[:13], 16) / 16**13


def split(
    rows: Sequence[Located[Record]], eval_fraction: float, name: str
) -> tuple[list[Located[Record]], list[Located[Record]]]:
    """Return (train, eval): prompts whose place is below the fraction are held out, with all their rows.

    Where chance leaves one side without a prompt, the prompt nearest to the border moves there. Raises UserError where
    there is one prompt only.
    """
    places = {row.key: place_of(row.key) for row in rows}
    if len(places) < 2:
        raise UserError(
            f"{name}: {len(places)} distinct prompt, so none can be held out; add prompts, or name a held-out file in "
            f"{name.replace('data.', 'data.eval_')}"
        )
    ordered = sorted(places, key=lambda key: (places[key], key))
    count = sum(place < eval_fraction for place in places.values())
    held_out = set(ordered[: min(max(count, 1), len(ordered) - 1)])
    return [row for row in rows if row.key not in held_out], [row for row in rows if row.key in held_out]


def shared_prompts(first: Iterable[Located[Record]], second: Iterable[Located[Record]]) -> list[Clash]:
    """List the rows of `first` whose prompt is also in `second`."""
    other: dict[str, Located[Record]] = {}
    for row in second:
        other.setdefault(row.key, row)
    return [Clash(row.file, row.line, other[row.key].file, other[row.key].line) for row in first if row.key in other]


def longer_wins(rows: Iterable[Located[PreferenceRecord]]) -> LongerWins:
    """Return how often length alone finds the better response."""
    characters, tokens = [], []
    for row in rows:
        for better, worse in pairs(row.record):
            sizes = [len(response) for response in row.record.responses]
            characters.append(_longer(sizes[better], sizes[worse]))
            tokens.append(_longer(row.response_tokens[better], row.response_tokens[worse]))
    count = max(len(characters), 1)
    return LongerWins(len(characters), sum(characters) / count, sum(tokens) / count)


def _longer(better: int, worse: int) -> float:
    return 0.5 if better == worse else float(better > worse)
