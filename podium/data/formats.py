"""Read a row of compared responses, in any accepted format, as a canonical record.

Each reader is a pure function of the row's columns. It returns a Draft or raises Refused; `read_preference` adds what
all formats share. docs/data-formats.md shows a row of each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from podium.data import conversations, fields
from podium.data.columns import Columns, framed, listed, optional, plain, row_id, unknown_columns
from podium.data.fields import Refused
from podium.data.managed import alpaca_prompt, managed_prompt, managed_turns, openai_prompt
from podium.data.records import Message, PreferenceRecord
from podium.data.serialised import unserialised
from podium.errors import UserError

PAIR = ("chosen", "rejected")
SHARED_COLUMNS = ("id", "margin", "rater", "source", "weight", "shown_order", "metadata")
REPLY_COLUMNS = ("response", "completion", "completions", "responses", "chosen", "output", "candidate_0", "response_a")


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
    prompt = framed(present, draft.prompt, known)
    metadata = {**draft.metadata, **unknown_columns(present, known)}
    try:
        return PreferenceRecord(
            id=row_id(present, prompt, draft.responses, draft.ranks),
            prompt=prompt,
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


def _detect(row: Columns) -> Format:
    for candidate in FORMATS.values():
        if all(name in row for name in candidate.columns):
            return candidate
    if any(name in row for name in REPLY_COLUMNS):
        _refuse_single()
    raise Refused(
        "columns",
        f"columns {listed(row)} fit no format of compared responses; write prompt, chosen and rejected",
    )


def _named(name: str, row: Columns) -> Format:
    wanted = FORMATS[name]
    missing = [column for column in wanted.columns if column not in row]
    if missing:
        raise Refused("columns", f"no column {', '.join(missing)}, which format {name} needs; it has {listed(row)}")
    return wanted


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
    responses = [
        conversations.response(value, f"response {place}") for place, value in enumerate(row["responses"], start=1)
    ]
    if len(responses) < 2:
        _refuse_single()
    ranks = fields.whole_numbers(row["ranks"], "ranks")
    if len(ranks) != len(responses):
        raise Refused("ranks", f"{len(responses)} responses but {len(ranks)} ranks; write one rank for each response")
    return Draft(conversations.prompt(row["prompt"]), responses, ranks, {})


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
        texts.append(conversations.response(item.get("text", item.get("completion")), f"completion {place}"))
        ranks.append(fields.whole_number(item["rank"], f"the rank of completion {place}"))
        rest.append({key: plain(value) for key, value in item.items() if key not in ("text", "completion", "rank")})
    prompt = conversations.prompt(row["prompt"]) if "prompt" in row else conversations.prompt(row["context"], "context")
    return Draft(prompt, texts, ranks, {"completions": rest} if any(rest) else {})


def _pair(column: str, prompt_of: Callable[[Columns], list[Message]] | None = None) -> Callable[[Columns], Draft]:
    """Read a prompt from `column`, chosen and rejected, which may repeat the prompt; `prompt_of` reads it otherwise."""

    def read(row: Columns) -> Draft:
        given = conversations.turns(row[column], column) if prompt_of is None else prompt_of(row)
        both = {name: unserialised(row[name], name) for name in PAIR}
        if all(isinstance(value, list) and len(value) > 1 for value in both.values()):
            return _repeating(given, _implicit_messages(both), column)
        if all(isinstance(value, str) and conversations.is_transcript(value) for value in both.values()):
            return _repeating(given, _transcripts(both), column)
        responses = [conversations.response(value, name) for name, value in both.items()]
        return Draft(conversations.asks(given, column), responses, [1, 2], {})

    return read


def _repeating(given: list[Message], implicit: Draft, column: str) -> Draft:
    """Return what two conversations say, if they begin with the prompt that is given too."""
    whole = [[*implicit.prompt, Message(role="assistant", content=text)] for text in implicit.responses]
    if implicit.prompt[-len(given) :] != given and given not in whole:
        raise Refused(
            "prompt", f"the conversations in chosen and rejected do not begin with {column}; drop one of both"
        )
    return implicit


def _implicit(row: Columns) -> Draft:
    """Read chosen and rejected, two conversations or transcripts that share all but the last reply."""
    both = {name: unserialised(row[name], name) for name in PAIR}
    if all(isinstance(value, str) for value in both.values()):
        return _transcripts(both)
    return _implicit_messages(both)


def _implicit_messages(row: Columns) -> Draft:
    chosen, rejected = (conversations.messages(row[name], name) for name in PAIR)
    for name in PAIR:
        conversations.refuse_unlearned(row[name], name)
    return _split_shared(chosen, rejected)


def _transcripts(row: Columns) -> Draft:
    for name in PAIR:
        if not conversations.is_transcript(fields.text(row[name], name)):
            reason = f'{name} is a text without a prompt; add a column prompt, or begin it with "\\n\\nHuman: "'
            raise Refused("transcript", reason)
    return _split_shared(*(conversations.transcript(row[name], name) for name in PAIR))


def _split_shared(chosen: list[Message], rejected: list[Message]) -> Draft:
    """Cut two conversations at the end of the last turn that they share."""
    shared = min(conversations.shared_prefix(chosen, rejected), len(chosen) - 1, len(rejected) - 1)
    for name, turns in zip(PAIR, (chosen, rejected), strict=True):
        if len(turns) != shared + 1:
            reason = f"chosen and rejected part at message {shared + 1}, before the last reply of {name}"
            raise Refused("diverging_conversations", f"{reason}; they must differ in the last reply only")
    if shared == 0:
        raise Refused("prompt", "chosen and rejected share no turn, so there is no prompt; add a column prompt")
    prompt = conversations.asks(chosen[:shared], "the shared prompt")
    responses = [
        conversations.response(turns[shared:], name) for name, turns in zip(PAIR, (chosen, rejected), strict=True)
    ]
    return Draft(prompt, responses, [1, 2], {})


def _vertex(row: Columns) -> Draft:
    """Read the managed pipeline's rows: input_text or messages with context, candidate_0, candidate_1, choice."""
    return Draft(
        managed_prompt(row),
        [conversations.response(row[name], name) for name in ("candidate_0", "candidate_1")],
        fields.choice(row["choice"]),
        {},
    )


def _openai(row: Columns) -> Draft:
    return Draft(
        openai_prompt(row),
        [conversations.response(row[name], name) for name in ("preferred_output", "non_preferred_output")],
        [1, 2],
        {},
    )


def _table(row: Columns) -> Draft:
    responses = [fields.text(row[name], name) for name in ("response_a", "response_b")]
    return Draft(conversations.prompt(row["prompt"]), responses, fields.choice(row["choice"]), {})


# In the order in which "auto" tries them: a format comes before those whose columns are a part of its own.
FORMATS = {
    entry.name: entry
    for entry in (
        Format("canonical", ("prompt", "responses", "ranks"), _canonical),
        Format("ranked", ("prompt", "completions"), _ranked),
        Format("ranked_context", ("context", "completions"), _ranked),
        Format("pair", ("prompt", *PAIR), _pair("prompt")),
        Format("sharegpt", ("conversations", *PAIR), _pair("conversations")),
        Format("messages", ("messages", *PAIR), _pair("messages", managed_turns), ("context",)),
        Format("alpaca", ("instruction", *PAIR), _pair("instruction", alpaca_prompt), ("input",)),
        Format("question", ("question", *PAIR), _pair("question")),
        Format("input", ("input", *PAIR), _pair("input")),
        Format("conversations", PAIR, _implicit),
        Format("hh", PAIR, _transcripts),
        Format("managed", ("candidate_0", "candidate_1", "choice"), _vertex, ("input_text", "messages", "context")),
        Format("openai", ("input", "preferred_output", "non_preferred_output"), _openai),
        Format("csv", ("prompt", "response_a", "response_b", "choice"), _table),
    )
}
