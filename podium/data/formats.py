"""Read a row of compared responses, in any accepted format, as a canonical record.

Each reader is a pure function of the row's columns. It returns a Draft or raises Refused; `read_preference` adds what
all formats share. docs/data-formats.md shows a row of each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from podium.data import fields
from podium.data.fields import Refused
from podium.data.records import Message, PreferenceRecord, digest
from podium.errors import UserError

Columns = Mapping[str, Any]
SHARED_COLUMNS = ("id", "margin", "rater", "source", "weight", "shown_order", "metadata")
REPLY_COLUMNS = ("response", "completion", "completions", "responses", "chosen", "output", "candidate_0", "response_a")
MAX_DEPTH = 32


@dataclass(frozen=True)
class Draft:
    """What a format's own columns say; `metadata` is what they hold besides."""

    prompt: list[Message]
    responses: list[str]
    ranks: list[int]
    metadata: Mapping[str, Any]


@dataclass(frozen=True)
class Format:
    """A named format: all of `columns` must be there, `optional` ones are read too, the rest becomes metadata."""

    name: str
    columns: tuple[str, ...]
    read: Callable[[Columns], Draft]
    optional: tuple[str, ...] = ()


def read_preference(row: Columns, format: str = "auto") -> PreferenceRecord:
    """Read one row. Raises Refused with the reason; `format` "auto" goes by the columns."""
    present = {name: value for name, value in row.items() if value is not None}
    chosen = _detect(present) if format == "auto" else _named(format, present)
    draft = chosen.read(present)
    _check_distinct(draft.responses)
    known = {*chosen.columns, *chosen.optional, *SHARED_COLUMNS}
    metadata = {**draft.metadata, **unknown_columns(present, known)}
    try:
        return PreferenceRecord(
            id=row_id(present, draft.prompt, draft.responses, draft.ranks),
            prompt=draft.prompt,
            responses=draft.responses,
            ranks=fields.dense_ranks(draft.ranks),
            margin=optional(present, "margin", fields.number),
            rater=optional(present, "rater", fields.label),
            source=optional(present, "source", fields.label),
            weight=optional(present, "weight", fields.weight),
            shown_order=optional(present, "shown_order", fields.whole_numbers),
            metadata=metadata,
        )
    except ValidationError as error:
        raise Refused("record", error.errors()[0]["msg"].removeprefix("Value error, ")) from None


def check_format(name: str, known: Mapping[str, object], where: str) -> None:
    """Raise UserError if `name` is neither "auto" nor a known format."""
    if name != "auto" and name not in known:
        raise UserError(f"{where}: no format {name!r}; write auto or one of {', '.join(known)}")


def row_id(row: Columns, *content: object) -> str:
    """Return the row's own id, or one that depends on its content only."""
    own = row.get("id")
    return str(own) if isinstance(own, str | int) and not isinstance(own, bool) and own != "" else digest(*content)


def unknown_columns(row: Columns, known: set[str]) -> dict[str, Any]:
    """Return the columns that no field took, as plain JSON values, with the row's own metadata unfolded."""
    own = row.get("metadata", {})
    kept = {"metadata": own} if not isinstance(own, Mapping) else dict(own)
    kept |= {name: value for name, value in row.items() if name not in known}
    return {str(name): _plain(value) for name, value in sorted(kept.items(), key=lambda item: str(item[0]))}


def _plain(value: Any, depth: int = 0) -> Any:
    """Return the value as JSON has it; dates, bytes, decimals, NaN and the like become text."""
    if depth > MAX_DEPTH:
        raise Refused("unreadable", f"nested more than {MAX_DEPTH} deep; drop or flatten that column")
    if isinstance(value, Mapping):
        return {str(key): _plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, depth + 1) for item in value]
    if value is None or isinstance(value, str | int) or (isinstance(value, float) and value - value == 0):
        return value
    return str(value)


def optional(row: Columns, name: str, read: Callable[[Any, str], Any]) -> Any:
    """Return what a column holds; None where it is absent or empty."""
    return read(row[name], name) if row.get(name, "") != "" else None


def _detect(row: Columns) -> Format:
    for candidate in FORMATS.values():
        if all(name in row for name in candidate.columns):
            return candidate
    if any(name in row for name in REPLY_COLUMNS):
        _refuse_single()
    raise Refused(
        "columns",
        f"columns {_listed(row)} fit no format of compared responses; write prompt, chosen and rejected",
    )


def _named(name: str, row: Columns) -> Format:
    wanted = FORMATS[name]
    missing = [column for column in wanted.columns if column not in row]
    if missing:
        raise Refused("columns", f"no column {', '.join(missing)}, which format {name} needs; it has {_listed(row)}")
    return wanted


def _listed(row: Columns) -> str:
    names = ", ".join(sorted(map(str, row))) or "none"
    return names if len(names) <= 120 else names[:117] + "..."


def _refuse_single() -> None:
    raise Refused(
        "single_response",
        "one response per prompt, nothing to compare it with; write two or more (prompt, chosen, rejected)",
    )


def _check_distinct(responses: list[str]) -> None:
    seen: dict[str, int] = {}
    for number, response in enumerate(responses, start=1):
        first = seen.setdefault(response.strip(), number)
        if first != number:
            raise Refused(
                "identical", f"responses {first} and {number} are the same text; keep one, or leave the row out"
            )


def _canonical(row: Columns) -> Draft:
    if not isinstance(row["responses"], list) or not isinstance(row["ranks"], list):
        raise Refused("type", "responses and ranks must be lists of the same length")
    responses = [fields.response(value, f"response {place}") for place, value in enumerate(row["responses"], start=1)]
    if len(responses) < 2:
        _refuse_single()
    ranks = fields.whole_numbers(row["ranks"], "ranks")
    if len(ranks) != len(responses):
        raise Refused("ranks", f"{len(responses)} responses but {len(ranks)} ranks; write one rank for each response")
    return Draft(fields.prompt(row["prompt"]), responses, ranks, {})


def _ranked(row: Columns) -> Draft:
    """Read a list of completions, each with its text and rank; smaller is better."""
    completions = row["completions"]
    if not isinstance(completions, list) or not all(isinstance(item, Mapping) for item in completions):
        raise Refused("type", "completions must be a list of objects with text and rank")
    if len(completions) < 2:
        _refuse_single()
    texts, ranks, rest = [], [], []
    for place, item in enumerate(completions, start=1):
        if "rank" not in item:
            raise Refused("ranks", f"completion {place} has no rank; write 1 for the best, equal ranks for a tie")
        texts.append(fields.response(item.get("text", item.get("completion")), f"completion {place}"))
        ranks.append(fields.whole_number(item["rank"], f"the rank of completion {place}"))
        rest.append({key: _plain(value) for key, value in item.items() if key not in ("text", "completion", "rank")})
    prompt = fields.prompt(row["prompt"]) if "prompt" in row else fields.prompt(row["context"], "context")
    return Draft(prompt, texts, ranks, {"completions": rest} if any(rest) else {})


def _pair(row: Columns) -> Draft:
    """Read prompt, chosen and rejected; chosen and rejected may repeat the prompt as messages."""
    prompt = fields.prompt(row["prompt"])
    if all(isinstance(row[name], list) and len(row[name]) > 1 for name in ("chosen", "rejected")):
        implicit = _implicit_messages(row)
        if implicit.prompt[-len(prompt) :] != prompt:
            raise Refused(
                "prompt", "the conversations in chosen and rejected do not begin with prompt; drop one of both"
            )
        return implicit
    return Draft(prompt, [fields.response(row[name], name) for name in ("chosen", "rejected")], [1, 2], {})


def _implicit(row: Columns) -> Draft:
    """Read chosen and rejected, two conversations or transcripts that share all but the last reply."""
    if all(isinstance(row[name], str) for name in ("chosen", "rejected")):
        return _transcripts(row)
    return _implicit_messages(row)


def _implicit_messages(row: Columns) -> Draft:
    return _split_shared(*(fields.messages(row[name], name) for name in ("chosen", "rejected")))


def _transcripts(row: Columns) -> Draft:
    for name in ("chosen", "rejected"):
        if not fields.is_transcript(fields.text(row[name], name)):
            reason = f'{name} is a text without a prompt; add a column prompt, or begin it with "\\n\\nHuman: "'
            raise Refused("transcript", reason)
    return _split_shared(*(fields.transcript(row[name], name) for name in ("chosen", "rejected")))


def _split_shared(chosen: list[Message], rejected: list[Message]) -> Draft:
    """Cut two conversations at the end of the last turn that they share."""
    shared = min(fields.shared_prefix(chosen, rejected), len(chosen) - 1, len(rejected) - 1)
    for name, turns in (("chosen", chosen), ("rejected", rejected)):
        if len(turns) != shared + 1:
            reason = f"chosen and rejected part at message {shared + 1}, before the last reply of {name}"
            raise Refused("diverging_conversations", f"{reason}; they must differ in the last reply only")
    if shared == 0:
        raise Refused("prompt", "chosen and rejected share no turn, so there is no prompt; add a column prompt")
    prompt = fields.asks(chosen[:shared], "the shared prompt")
    return Draft(
        prompt, [fields.response(turns[shared:], name) for name, turns in _named_pair(chosen, rejected)], [1, 2], {}
    )


def _named_pair(chosen: list[Message], rejected: list[Message]) -> tuple[tuple[str, list[Message]], ...]:
    return ("chosen", chosen), ("rejected", rejected)


def _vertex(row: Columns) -> Draft:
    """Read the managed pipeline's rows: input_text or messages with context, candidate_0, candidate_1, choice."""
    return Draft(
        fields.managed_prompt(row),
        [fields.response(row[name], name) for name in ("candidate_0", "candidate_1")],
        fields.choice(row["choice"]),
        {},
    )


def _openai(row: Columns) -> Draft:
    return Draft(
        fields.openai_prompt(row),
        [fields.response(row[name], name) for name in ("preferred_output", "non_preferred_output")],
        [1, 2],
        {},
    )


def _table(row: Columns) -> Draft:
    responses = [fields.text(row[name], name) for name in ("response_a", "response_b")]
    return Draft(fields.prompt(row["prompt"]), responses, fields.choice(row["choice"]), {})


# In the order in which "auto" tries them: a format comes before those whose columns are a part of its own.
FORMATS = {
    entry.name: entry
    for entry in (
        Format("canonical", ("prompt", "responses", "ranks"), _canonical),
        Format("ranked", ("prompt", "completions"), _ranked),
        Format("ranked_context", ("context", "completions"), _ranked),
        Format("pair", ("prompt", "chosen", "rejected"), _pair),
        Format("conversations", ("chosen", "rejected"), _implicit),
        Format("hh", ("chosen", "rejected"), _transcripts),
        Format("managed", ("candidate_0", "candidate_1", "choice"), _vertex, ("input_text", "messages", "context")),
        Format("openai", ("input", "preferred_output", "non_preferred_output"), _openai),
        Format("csv", ("prompt", "response_a", "response_b", "choice"), _table),
    )
}
