"""Rows of prompts with the answers before and after, and which of them are shown."""

from collections.abc import Sequence
from typing import Any

from podium.data.records import Message

Sample = dict[str, Any]

# Beyond this an answer is cut in the page (never in samples.jsonl), and beyond the total rows are left out of it.
MAX_CHARACTERS = 4_000
MAX_PAGE_BYTES = 1_200_000


def change(row: Sample) -> float:
    """Return the rise of the reward from baseline to tuned."""
    return float(row["reward_tuned"] - row["reward_baseline"])


def spread(rows: Sequence[Sample], count: int) -> list[Sample]:
    """Choose `count` rows evenly over the order of reward change, worst first, both ends included."""
    ordered = sorted(rows, key=lambda row: (change(row), row["id"], row["generation"]))
    if count >= len(ordered):
        return ordered
    if count <= 1:
        return ordered[:count]
    return [ordered[round(place * (len(ordered) - 1) / (count - 1))] for place in range(count)]


def examples(rows: Sequence[Sample], count: int = 3) -> list[Sample]:
    """Choose rows for a summary: not the best ones, but those in the middle of equal shares of the reward change."""
    ordered = spread(rows, len(rows))
    return [ordered[int((place + 0.5) * len(ordered) / count)] for place in range(min(count, len(ordered)))]


def page_rows(rows: Sequence[Sample], count: int) -> list[Sample]:
    """Choose the rows that a page shows, with long texts cut, fewer where together they would be too large."""
    instruction = shared_instruction(rows)
    chosen = [_cut(row, instruction) for row in spread(rows, count)]
    while len(chosen) > 1 and sum(map(_bytes, chosen)) > MAX_PAGE_BYTES:
        chosen = spread(chosen, len(chosen) // 2)
    return chosen


def shared_instruction(rows: Sequence[Sample]) -> str | None:
    """Return the system message that every prompt starts with, if they all start with the same one."""
    first = {row["prompt"][0]["content"] if row["prompt"][0]["role"] == "system" else None for row in rows}
    return first.pop() if len(first) == 1 else None


def prompt_text(messages: Sequence[Message], instruction: str | None = None) -> str:
    """Write a conversation as text, without a leading `instruction`; a single user turn needs no label."""
    turns = list(messages)
    if instruction is not None and turns[0]["role"] == "system" and turns[0]["content"] == instruction:
        turns = turns[1:]
    if len(turns) == 1:
        return turns[0]["content"]
    return "\n\n".join(f"{turn['role']}: {turn['content']}" for turn in turns)


def _cut(row: Sample, instruction: str | None) -> Sample:
    texts = {
        "prompt_text": prompt_text(row["prompt"], instruction),
        **{side: row[side] for side in ("baseline", "tuned")},
    }
    return {**row, **{name: shorten(text) for name, text in texts.items()}}


def shorten(text: str) -> str:
    """Cut a text that is too long for a page, and say so."""
    left_out = len(text) - MAX_CHARACTERS
    return text if left_out <= 0 else f"{text[:MAX_CHARACTERS]} … ({left_out} more characters in samples.jsonl)"


def _bytes(row: Sample) -> int:
    # Escaping turns one character into at most six (&#34; and the like are five, an entity of UTF-8 text four bytes).
    return sum(len(row[name].encode("utf-8", "replace")) + 5 * sum(map(row[name].count, "<>&\"'")) for name in _TEXTS)


_TEXTS = ("prompt_text", "baseline", "tuned")
