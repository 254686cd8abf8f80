"""Sentencepiece models, written through the message that transformers ships, which is compiled from its definition."""

from pathlib import Path
from typing import Any

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6
SPECIALS = [("<unk>", 0.0, UNKNOWN), ("<s>", 0.0, CONTROL), ("</s>", 0.0, CONTROL)]
BYTES = [(f"<0x{number:02X}>", 0.0, BYTE) for number in range(256)]
# "he" is merged before "el"; scores are what decides, not the order.
WORDS = ["▁", "h", "e", "l", "o", "el", "he", "▁he", "ll", "▁hell", "▁hello"]
SCORES = [-9.0, -9.0, -9.0, -9.0, -9.0, -5.0, -1.0, -2.0, -3.0, -4.0, -6.0]
PIECES = [*SPECIALS, *BYTES, *((word, score, NORMAL) for word, score in zip(WORDS, SCORES, strict=True))]
# T5's: probabilities of pieces, no bytes.
UNIGRAM = [("<pad>", 0.0, CONTROL), ("</s>", 0.0, CONTROL), ("<unk>", 0.0, UNKNOWN)]
UNIGRAM += [(text, score, NORMAL) for text, score in (("▁", -3.0), ("▁he", -4.0), ("llo", -5.0), ("▁hell", -4.5))]
UNIGRAM += [("o", -6.0, NORMAL)]
T5_OPTIONS = {"model_type": 1, "byte_fallback": False, "pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}


def write_spm(path: Path, pieces: list[tuple[str, float, int]] = PIECES, **options: Any) -> Path:
    """Write a model as Llama's is: byte-pair merges, bytes for the unknown, a space put before a text.

    Options replace fields of its trainer_spec or normalizer_spec.
    """
    from transformers.utils import sentencepiece_model_pb2_new as messages

    model = messages.ModelProto()
    for text, score, kind in pieces:
        model.pieces.add(piece=text, score=score, type=kind)
    fields = {
        "model_type": 2,
        "byte_fallback": True,
        "unk_id": 0,
        "bos_id": 1,
        "eos_id": 2,
        "pad_id": -1,
        "name": "identity",
        "add_dummy_prefix": True,
        "remove_extra_whitespaces": False,
    }
    for name, value in (fields | options).items():
        part = model.trainer_spec if name in model.trainer_spec.DESCRIPTOR.fields_by_name else model.normalizer_spec
        setattr(part, name, value)
    path.write_bytes(model.SerializeToString())
    return path
