"""What a person should read on the terminal about a data set: what was left out of it, and what was left unread."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from podium.data.report import Findings, Part

# Less than this of a data set, for all reasons together, is told in the report alone.
SHARE_TOLD = 0.05
NAMES_TOLD = 8


def notices(findings: Findings) -> list[str]:
    """Return one line each for what is worth to know before a run goes on."""
    lines = list(findings.notes)
    for name, part in zip(("preferences", "prompts", "demonstrations"), findings.parts, strict=True):
        lines += _left_out(f"data.{name}", part, findings.tied if name == "preferences" else 0)
        lines += _unread(f"data.{name}", part)
    shown = [*findings.demonstrations.train, *findings.demonstrations.eval]
    earlier = sum(any(turn["role"] == "assistant" for turn in row.record.prompt) for row in shown)
    if earlier:
        lines.append(
            f"data.demonstrations: {earlier:,} of {len(shown):,} conversations hold earlier replies; only the last "
            "reply of each is learned"
        )
    return lines


def _left_out(name: str, part: Part, tied: int) -> Iterator[str]:
    """Say what was dropped, where it is more than SHARE_TOLD of the set, of a file or of its training rows."""
    kinds = Counter(item.kind.replace("_", " ") for item in part.collected.refused)
    refused = ", ".join(f"{kind} {count:,}" for kind, count in kinds.most_common())
    reasons = {
        f"refused ({refused})": kinds.total(),
        "tied": tied,
        "repeated": len(part.duplicates),
        "with a prompt that a held-out file has too": len(part.leaked),
    }
    dropped, rows = sum(reasons.values()), len(part.collected.rows) + kinds.total() + tied
    by_file = Counter(item.file for item in part.collected.refused)
    by_file.update(item.file for item in (*part.duplicates, *part.leaked))
    shares = [by_file[item.file] / item.rows for item in part.collected.files]
    shares += [dropped / max(rows, 1), len(part.leaked) / max(len(part.train) + len(part.leaked), 1)]
    if max(shares) > SHARE_TOLD:
        listed = ", ".join(f"{count:,} {reason}" for reason, count in reasons.items() if count)
        yield f"{name}: {dropped:,} of {rows:,} rows are left out: {listed}; data_report lists them"


def _unread(name: str, part: Part) -> Iterator[str]:
    if part.collected.columns:
        yield f"{name}: kept as metadata, no part of what a model reads: {_listed(part.collected.columns)}"
    if part.collected.message_keys:
        yield f"{name}: keys of messages that are not read: {_listed(part.collected.message_keys)}"


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMES_TOLD} more" if len(names) > NAMES_TOLD else ""
    return ", ".join(names[:NAMES_TOLD]) + more
