"""What a model's chat template writes: a conversation, and what stands around a reply."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from podium.data.records import Message
from podium.data.template_trial import TemplateFailed, reason_of, try_template
from podium.errors import UserError

# Some templates write the day into the system turn. A fixed one keeps equal inputs equal; it is the date that Llama's
# own template falls back to. Transformers lets only text into a template, so a macro stands in for its clock.
TEMPLATE_DATE = datetime.date(2024, 7, 26)
FIXED_CLOCK = (
    "{%- macro strftime_now(format) -%}{{ format"
    + "".join(
        f" | replace('{code}', '{TEMPLATE_DATE.strftime(code)}')" for code in ("%d", "%m", "%Y", "%b", "%B", "%A")
    )
    + " }}{%- endmacro -%}"
)
PROBE = "Zq7"
QUESTION = [Message(role="user", content="a")]
ANSWER = Message(role="assistant", content=f"  {PROBE}  ")
# A token that templates write as a mark, whatever its flags: not a word or white space that the vocabulary was given.
MARK = re.compile(r"[<\[{|].*[>\]}|]", re.DOTALL)
# What a generation prompt may open that is not in a finished turn: a block in which a model thinks.
OPENS_THOUGHT = re.compile(r"\s*\W{0,3}[\w:|]*(?:think|thought|reason)\w*\W{0,3}\s*", re.IGNORECASE)


@dataclass(frozen=True)
class Turn:
    """What a chat template writes around an assistant's reply."""

    opening: str
    before: str
    after: str
    strips: bool


RAW_TURN = Turn(opening="", before="", after="", strips=False)


@dataclass(frozen=True)
class Written:
    """What a template was seen to write: a turn, the token that ends it (None: none does), and its marks of turns."""

    turn: Turn
    end: str | None
    marks: tuple[str, ...]


def check_template(hf: Any, name: str) -> None:
    """Refuse a template that is no text, or several of which none is the default."""
    given = hf.chat_template
    if isinstance(given, dict) and given and "default" not in given:
        raise UserError(
            f"{name}: its tokenizer has the chat templates {', '.join(sorted(map(str, given)))} and none called "
            "default; write one"
        )
    template = given.get("default") if isinstance(given, dict) else given
    if template is not None and not isinstance(template, str):
        raise UserError(
            f"{name}: its chat_template is {type(template).__name__}, not a text; mend tokenizer_config.json"
        )


def render(hf: Any, messages: Sequence[Message], *, prompting: bool) -> str:
    """Return what the template writes. Raises TemplateFailed with whatever it raises."""
    try:
        return str(
            hf.apply_chat_template(
                list(messages),
                add_generation_prompt=prompting,
                tokenize=False,
                chat_template=_template(hf),
                date_string=TEMPLATE_DATE.strftime("%d %b %Y"),
            )
        )
    # A template is a program: it may raise anything.
    except Exception as error:
        raise TemplateFailed(reason_of(error)) from None


def _template(hf: Any) -> str:
    template = str(hf.get_chat_template())
    return FIXED_CLOCK + template if "strftime_now" in template else template


def render_first(hf: Any, messages: Sequence[Message], *, prompting: bool) -> str:
    """Render within limits of time, memory and size."""
    variables = {
        **{key: value if isinstance(value, str) else str(value) for key, value in hf.special_tokens_map.items()},
        "add_generation_prompt": prompting,
        "date_string": TEMPLATE_DATE.strftime("%d %b %Y"),
    }
    try_template(_template(hf), messages, variables)
    return render(hf, messages, prompting=prompting)


def probe_turn(hf: Any, name: str, ends: Iterable[str]) -> Written:
    """Find what the template writes around a reply; `ends` are further tokens that may end it.

    Raises UserError where it writes nothing that one could train on.
    """
    try:
        prompt = render_first(hf, QUESTION, prompting=True)
        full = render_first(hf, [*QUESTION, ANSWER], prompting=False)
    except TemplateFailed as error:
        raise UserError(f"{name}: its chat template does not render a question and an answer: {error}") from None
    shared = _shared(prompt, full, name)
    strips = f"  {PROBE}  " not in full
    before, after = full[len(shared) :].split(PROBE if strips else f"  {PROBE}  ", 1)
    marks = tuple(
        sorted(token for token in _marks(hf) if token in shared + after and not OPENS_THOUGHT.fullmatch(token))
    )
    known = {*special_tokens(hf), *marks, *ends}
    places = [(after.index(token), token) for token in known if token in after]
    place, end = min(places, key=lambda result: (result[0], -len(result[1])), default=(0, None))
    # A template that ignores add_generation_prompt leaves the assistant's header to us; so does an empty <think> block.
    # White space stays with the reply: it makes one token with the first word.
    opening, before = (before, "") if before.strip() else ("", before)
    if len(shared) < len(prompt):
        before = ""
    return Written(Turn(opening=opening, before=before, after=after[:place], strips=strips), end, marks)


def _shared(prompt: str, full: str, name: str) -> str:
    """Return the generation prompt, as far as a finished turn begins with it.

    A block in which the model thinks may be opened in the one and left out in the other: the reply goes on from there.
    """
    parted = (place for place, (one, other) in enumerate(zip(prompt, full, strict=False)) if one != other)
    shared = prompt[: next(parted, min(len(prompt), len(full)))]
    rest, reply = prompt[len(shared) :], full[len(shared) :]
    if PROBE in reply and (not rest or (OPENS_THOUGHT.fullmatch(rest) and reply.lstrip().startswith(PROBE))):
        return shared
    cause = f", which ends with {rest[:60]!r} and is not in an assistant's turn" if rest and PROBE in reply else ""
    raise UserError(
        f"{name}: in its chat template an assistant's turn does not go on from the generation prompt{cause}; "
        "mend chat_template.jinja so that it does"
    )


def special_tokens(hf: Any) -> list[str]:
    """Return the tokens that are flagged as special, or named as one."""
    special = {str(token) for token in hf.added_tokens_decoder.values() if token.special}
    return sorted(special | set(map(str, hf.all_special_tokens)))


def _marks(hf: Any) -> set[str]:
    """Return added tokens that look like marks of turns and are not flagged as special."""
    added = {str(token) for token in hf.added_tokens_decoder.values() if not token.special}
    return {token for token in added if MARK.fullmatch(token.strip())}
