"""Give a folder with a sentencepiece model alone the tokenizer.json that transformers reads without that library."""

from pathlib import Path
from typing import Any

from podium.convert.gguf_tokenizer import build_tokenizer, write_tokenizer
from podium.convert.spm_file import UNIGRAM, llama_fields, read_spm
from podium.errors import UserError
from podium.models.weights.json_file import read_json

_OF_T5, _OF_LLAMA = "spiece.model", "tokenizer.model"
_COMPLETE = ("tokenizer.json", "vocab.json", "vocab.txt")
_SENTINELS = 100  # of T5, where tokenizer_config.json does not say


def complete_tokenizer(folder: Path) -> None:
    """Write tokenizer.json where it is missing and can be made; raises UserError for a model of another kind."""
    if any((folder / name).is_file() for name in _COMPLETE):
        return
    if (folder / _OF_T5).is_file():
        _t5(folder).save_pretrained(str(folder))
    elif (folder / _OF_LLAMA).is_file():
        write_tokenizer(folder, *build_tokenizer(llama_fields(folder / _OF_LLAMA), str(folder / _OF_LLAMA)))


def _t5(folder: Path) -> Any:
    from transformers import T5Tokenizer

    model = read_spm(folder / _OF_T5)
    if model.kind != UNIGRAM or model.byte_fallback:
        raise UserError(f"{folder / _OF_T5}: is no tokenizer of a T5; put the model's tokenizer.json beside it")
    config = folder / "tokenizer_config.json"
    sentinels = read_json(config).get("extra_ids", _SENTINELS) if config.is_file() else _SENTINELS
    vocab = list(zip(model.pieces, model.scores, strict=True))
    vocab += [(f"<extra_id_{number}>", 0.0) for number in reversed(range(sentinels))]
    return T5Tokenizer(vocab=vocab, extra_ids=sentinels, _spm_precompiled_charsmap=model.charsmap or None)
