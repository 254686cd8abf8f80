"""Turn conversations into token ids as the model's own chat template writes them, and token ids into text."""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from podium.data.chat_template import (
    MARK,
    PROBE,
    RAW_TURN,
    Turn,
    Written,
    check_template,
    probe_turn,
    render,
    render_first,
    special_tokens,
)
from podium.data.records import Message
from podium.data.template_trial import TemplateFailed
from podium.data.tokenizer_files import CONFIG_FILE, check_files, generation_ends, keep_readable
from podium.errors import UserError

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")
CUTTING_PROBE = "In 1969, who  walked\ton the Moon's  far side? Réponds: 漢字 — 12345!\n\n(x**2) "
# A continuation is encoded behind one of these, where the tokenizer would otherwise put a word start before it.
ANCHORS = ("\n", "x", "0", ".")


@dataclass(frozen=True, eq=False)
class Tokenizer:
    """A model's tokenizer and chat template.

    `pad_id` is never one of `eos_ids`: padding must not look like an end. `eos_ids` are all tokens that end a reply:
    the tokenizer's own, the template's end of turn, and those of generation_config.json. `end_id` is the one that
    `encode_response` writes. `marks` are tokens that the template writes between turns and that nothing flags as
    special; `class_name` is what the model's folder calls its tokenizer. A prompt and its response are encoded apart,
    since generation meets them apart: no token ever spans the boundary. `apart`: they are two texts, as an
    encoder-decoder reads them: a prompt keeps the end that the tokenizer writes behind a text, and a response begins as
    a text does; else the response goes on from the prompt.
    """

    hf: Any = field(repr=False)
    name: str
    pad_id: int
    eos_ids: tuple[int, ...]
    end_id: int
    turn: Turn
    marks: tuple[str, ...] = ()
    class_name: str | None = None
    apart: bool = False

    @property
    def vocab_size(self) -> int:
        """Count the tokens, added ones included; the embedding of the model may be larger."""
        return len(self.hf)

    @property
    def has_template(self) -> bool:
        """Say whether the model was trained on conversations."""
        return bool(self.hf.chat_template)

    def encode_prompt(self, messages: Sequence[Message]) -> list[int]:
        """Return the conversation up to where the assistant begins to write.

        Without a chat template the texts stand as they are, joined by an empty line. Raises UserError where the
        template refuses the conversation.
        """
        if self.has_template:
            return _encode(self.hf, self._rendered(messages) + self.turn.opening)
        ids = [int(token) for token in self.hf("\n\n".join(turn["content"] for turn in messages)).input_ids]
        return ids[:-1] if ids[-1:] == [self.end_id] and not self.apart else ids

    def encode_response(self, text: str, *, end: bool = True) -> list[int]:
        """Return the reply as the template writes an assistant's turn, by default with the token that ends it."""
        written = self.turn.before + (text.strip() if self.turn.strips else text)
        if not end:
            return self._encode_continuation(written)
        return [*self._encode_continuation(written + self.turn.after), self.end_id]

    @functools.cached_property
    def ending(self) -> tuple[int, ...]:
        """What stands behind a reply: the template's own text there, if any, and the token that ends it."""
        return (*(self._encode_continuation(self.turn.after) if self.turn.after else ()), self.end_id)

    def ended(self, ids: Sequence[int]) -> list[int]:
        """Return a reply's ids with an end: as they are where they have one, else with the one that training writes."""
        return list(ids) if ids and ids[-1] in self.eos_ids else [*ids, *self.ending]

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of a reply without its control tokens."""
        kept = [int(token) for token in ids if int(token) not in self._control_ids]
        if self.apart or not self._adds_word_start:
            return str(self.hf.decode(kept))
        # The decoder takes a space off the start, for the word start that encoding a whole text puts there.
        anchor = _encode(self.hf, ANCHORS[0])
        return str(self.hf.decode([*anchor, *kept]))[len(str(self.hf.decode(anchor))) :]

    def same_as(self, other: Tokenizer) -> bool:
        """Say whether both give the same ids for every conversation, so that one's ids mean the same to the other."""
        ours, theirs = (
            (each.hf.get_vocab(), each.hf.chat_template, each.apart, each.end_id, each.turn) for each in (self, other)
        )
        # Where vocabularies are equal, the rules by which texts are cut may still differ.
        return ours == theirs and _encode(self.hf, CUTTING_PROBE) == _encode(other.hf, CUTTING_PROBE)

    def control_token_in(self, text: str) -> str | None:
        """Return a control token that the text spells out, which would end or forge a turn; None if there is none."""
        return next((token for token in self._control_tokens if token in text), None)

    def save(self, folder: str | Path) -> None:
        """Write the files that `load_tokenizer` and transformers read."""
        self.hf.save_pretrained(str(folder))
        keep_readable(Path(folder) / CONFIG_FILE, self.class_name)

    def _rendered(self, messages: Sequence[Message]) -> str:
        if messages[0]["role"] == "system" and not self._keeps_system:
            raise UserError(
                f"{self.name}: its chat template takes no system message; leave out data.instruction and system turns, "
                "or put their text into the user's turn"
            )
        try:
            return render(self.hf, messages, prompting=True)
        except TemplateFailed as error:
            raise UserError(f"{self.name}: its chat template refuses this conversation: {error}") from None

    @functools.cached_property
    def _keeps_system(self) -> bool:
        """Render a system message: some templates refuse one, others lose it without a word."""
        probe = [Message(role="system", content=PROBE), Message(role="user", content="a")]
        try:
            return PROBE in render_first(self.hf, probe, prompting=True)
        except TemplateFailed:
            return False

    @functools.cached_property
    def _control_ids(self) -> frozenset[int]:
        marks = map(self.hf.convert_tokens_to_ids, self.marks)
        return frozenset([*self.hf.all_special_ids, *self.eos_ids, self.pad_id, *marks])

    @functools.cached_property
    def _control_tokens(self) -> tuple[str, ...]:
        ends = (str(self.hf.convert_ids_to_tokens(end)) for end in self.eos_ids)
        return tuple(sorted({*special_tokens(self.hf), *self.marks, *filter(MARK.fullmatch, ends)}))

    @functools.cached_property
    def _adds_word_start(self) -> bool:
        """Say whether encoding puts a word start before a text, as sentencepiece does."""
        first = self.hf.convert_ids_to_tokens(_encode(self.hf, "x"))[0]
        return str(first).startswith("▁")

    def _encode_continuation(self, text: str) -> list[int]:
        if self.apart or not self._adds_word_start:
            return _encode(self.hf, text)
        for anchor in ANCHORS:
            before, ids = _encode(self.hf, anchor), _encode(self.hf, anchor + text)
            if ids[: len(before)] == before:
                return ids[len(before) :]
        return _encode(self.hf, text)


def load_tokenizer(folder: str | Path, *, revision: str | None = None, apart: bool = False) -> Tokenizer:
    """Load the tokenizer of a model folder, or of a model that transformers has by name; `apart` as in Tokenizer.

    Raises UserError where there is none, where it names no end, or where its template does not go on from a prompt.
    """
    name = str(folder)
    path = Path(folder)
    _check_place(name, path)
    class_name = check_files(path) if path.is_dir() else None
    hf = _load_hf(name, revision)
    check_template(hf, name)
    if hf.eos_token_id is None:
        raise UserError(f"{name}: the tokenizer names no eos_token; write it into tokenizer_config.json")
    more = generation_ends(path, len(hf))
    ends = [token for end in more if _encode(hf, token := str(hf.convert_ids_to_tokens(end))) == [end]]
    written = probe_turn(hf, name, ends) if hf.chat_template else Written(RAW_TURN, None, ())
    end_id = int(hf.eos_token_id if written.end is None else hf.convert_tokens_to_ids(written.end))
    eos_ids = tuple(sorted({end_id, int(hf.eos_token_id), *more}))
    return Tokenizer(
        hf=hf,
        name=name,
        pad_id=_pad_id(hf, eos_ids),
        eos_ids=eos_ids,
        end_id=end_id,
        turn=written.turn,
        marks=written.marks,
        class_name=class_name,
        apart=apart,
    )


def _check_place(name: str, path: Path) -> None:
    """Refuse a path without a tokenizer; any other name is left to transformers."""
    if path.is_dir():
        if not any((path / file).is_file() for file in TOKENIZER_FILES):
            raise UserError(
                f"{name}: no tokenizer.json in this model folder; copy the tokenizer of its base model there "
                "(tokenizer.save_pretrained)"
            )
    elif path.is_file():
        raise UserError(f"{name}: is a file; write a model folder (`podium import-weights` makes one of a .gguf file)")
    elif path.is_absolute() or name.startswith(".") or "://" in name:
        raise UserError(f"{name}: no such model folder; write the path of a folder with a model and its tokenizer")


def _load_hf(name: str, revision: str | None) -> Any:
    # Without torch, which no stage needs, it would print advice to install it.
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    from transformers import AutoTokenizer

    # It warns of token ids in config.json that are nobody's, as the pad_token_id of -1 of published Llamas.
    logging.getLogger("transformers.configuration_utils").setLevel(logging.ERROR)
    try:
        hf = AutoTokenizer.from_pretrained(name, revision=revision, trust_remote_code=False)
        # Some of what a file may say wrongly is met only where it is used.
        hf.decode(_encode(hf, PROBE))
        return hf
    # The tokenizers library raises bare Exception for a damaged file.
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise UserError(
            f"{name}: its tokenizer cannot be loaded ({reason}); name a folder that holds tokenizer.json"
        ) from None


def _encode(hf: Any, text: str) -> list[int]:
    return [int(token) for token in hf(text, add_special_tokens=False).input_ids]


def _pad_id(hf: Any, eos_ids: tuple[int, ...]) -> int:
    """Choose the padding: the tokenizer's own unless it ends a reply, a token named so, an idle one, the lowest id."""
    if hf.pad_token_id is not None and hf.pad_token_id not in eos_ids:
        return int(hf.pad_token_id)
    used = {*eos_ids, hf.bos_token_id}
    special = sorted((token_id, str(token)) for token_id, token in hf.added_tokens_decoder.items() if token.special)
    template = hf.get_chat_template() if hf.chat_template else ""
    idle = [(token_id, token) for token_id, token in special if token_id not in used and token not in template]
    named = [token_id for token_id, token in idle if "pad" in token.lower()]
    rest = [token_id for token_id, _ in idle]
    lowest = (token_id for token_id in range(len(hf)) if token_id not in eos_ids)
    return int((named or rest or [next(lowest)])[0])
