"""Read a sentencepiece model without that library: one protocol buffer message, its `ModelProto`.

The message is defined in github.com/google/sentencepiece, src/sentencepiece_model.proto.
"""

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from podium.errors import UserError

UNIGRAM, BPE = 1, 2
_TIKTOKEN = re.compile(rb"[A-Za-z0-9+/]+=* \d+\r?\n")


@dataclass(frozen=True)
class SpmModel:
    """What decides ids. types: 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte.

    kind: UNIGRAM or BPE. charsmap: compiled normalization, empty for none. An id below 0 is none.
    """

    pieces: list[str]
    scores: list[float]
    types: list[int]
    kind: int
    ids: dict[str, int]
    byte_fallback: bool
    charsmap: bytes
    add_prefix: bool
    merge_spaces: bool


def read_spm(path: Path) -> SpmModel:
    """Read the file; raises UserError where it is none."""
    if not path.is_file():
        raise UserError(f"{path}: no such file; copy the model's tokenizer there")
    data = path.read_bytes()
    if _TIKTOKEN.match(data):
        raise UserError(f"{path}: has the form of Llama 3, which is not supported; use the model's Hugging Face folder")
    try:
        return _parse(data)
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, struct.error) as error:
        raise UserError(f"{path}: not a readable sentencepiece model ({error}); fetch the file again") from None


def llama_fields(path: Path) -> dict[str, Any]:
    """Give the content of Llama's tokenizer.model as a GGUF file's "tokenizer.*" fields.

    Raises UserError where it splits text in another way than Llama's does.
    """
    model = read_spm(path)
    if model.kind != BPE or not model.byte_fallback or model.charsmap or model.merge_spaces:
        raise UserError(f"{path}: is no tokenizer of a Llama; use the model's Hugging Face folder")
    names = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": model.pieces,
        "tokenizer.ggml.scores": model.scores,
        "tokenizer.ggml.token_type": model.types,
        "tokenizer.ggml.add_space_prefix": model.add_prefix,
        **{f"tokenizer.ggml.{names[name]}_token_id": number for name, number in model.ids.items() if number >= 0},
    }


def _parse(data: bytes) -> SpmModel:
    pieces: list[tuple[str, float, int]] = []
    parts: dict[int, dict[int, Any]] = {2: {}, 3: {}}
    for number, value in _fields(data):
        if number == 1:
            piece = dict(_fields(value))
            pieces.append((piece[1].decode(), _float(piece.get(2, bytes(4))), piece.get(3, 1)))
        elif number in parts:
            parts[number] |= dict(_fields(value))
    trainer, normalizer = parts[2], parts[3]
    if not pieces:
        raise ValueError("it has no pieces")
    numbers = {"unk": (40, 0), "bos": (41, 1), "eos": (42, 2), "pad": (43, -1)}
    return SpmModel(
        pieces=[piece for piece, _, _ in pieces],
        scores=[score for _, score, _ in pieces],
        types=[type_ for _, _, type_ in pieces],
        kind=trainer.get(3, UNIGRAM),
        ids={name: _signed(trainer.get(number, default)) for name, (number, default) in numbers.items()},
        byte_fallback=bool(trainer.get(35, 0)),
        charsmap=normalizer.get(2, b""),
        add_prefix=bool(normalizer.get(3, 1)),
        merge_spaces=bool(normalizer.get(4, 1)),
    )


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """Yield field numbers and values of a message: integers, or the bytes of anything else."""
    place = 0
    while place < len(data):
        tag, place = _varint(data, place)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            value, place = _varint(data, place)
            yield number, value
            continue
        if wire == 2:
            size, place = _varint(data, place)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
        else:
            raise ValueError(f"wire type {wire}")
        if place + size > len(data):
            raise ValueError("it is cut short")
        yield number, data[place : place + size]
        place += size


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[place]
        value |= (byte & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if byte < 0x80:
            return value, place
        if shift > 63:
            raise ValueError("a number is too long")


def _signed(value: int) -> int:
    """Read a 64-bit two's complement: negative numbers are written in ten bytes."""
    return value - 2**64 if value >= 2**63 else value


def _float(data: bytes) -> float:
    (value,) = struct.unpack("<f", data)
    return float(value)
