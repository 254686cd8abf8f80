"""Rebuild a tokenizer from the vocabulary and merges in a GGUF file's metadata."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.processors import TemplateProcessing

from podium.errors import UserError

_UNKNOWN, _CONTROL, _USER_DEFINED, _BYTE = 2, 3, 4, 6  # token types of llama.cpp's vocabulary, as of sentencepiece's

_LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN2_SPLIT = _LLAMA3_SPLIT.replace(r"\p{N}{1,3}", r"\p{N}")
_SPLITS = {"llama-bpe": _LLAMA3_SPLIT, "llama3": _LLAMA3_SPLIT, "llama-v3": _LLAMA3_SPLIT, "qwen2": _QWEN2_SPLIT}
_BYTE_LEVEL = ("gpt-2", "default", "smollm")


def build_tokenizer(fields: Mapping[str, Any], source: str) -> tuple[Tokenizer, dict[str, Any]]:
    """Give the tokenizer and the content of tokenizer_config.json for a GGUF file's "tokenizer.*" fields.

    Raises UserError for a kind of tokenizer, or a way to split text, whose ids we could not promise.
    """
    needed = {"gpt2": ("tokens", "merges"), "llama": ("tokens", "scores")}
    kind = fields.get("tokenizer.ggml.model")
    if kind not in needed:
        raise UserError(f"{source}: tokenizer.ggml.model {kind!r} is not supported; use a file with gpt2 or llama")
    for name in needed[kind]:
        if f"tokenizer.ggml.{name}" not in fields:
            raise UserError(f"{source}: field tokenizer.ggml.{name} is missing; fetch the file again")
    tokens: Sequence[str] = fields["tokenizer.ggml.tokens"]
    if kind == "gpt2":
        tokenizer, adds_bos = _byte_level(fields, tokens, source)
    else:
        tokenizer, adds_bos = _sentencepiece(fields, tokens), True
    types = fields.get("tokenizer.ggml.token_type") or ()
    for special, wanted in ((True, _CONTROL), (False, _USER_DEFINED)):
        marked = [token for token, type_ in zip(tokens, types, strict=False) if type_ == wanted]
        tokenizer.add_tokens([AddedToken(token, normalized=False, special=special) for token in marked])
    config = _tokenizer_config(fields, tokens, adds_bos)
    if config["add_bos_token"]:
        bos = config["bos_token"]
        tokenizer.post_processor = TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, tokens.index(bos))]
        )
    return tokenizer, config


def write_tokenizer(folder: Path, tokenizer: Tokenizer, config: Mapping[str, Any]) -> None:
    """Write tokenizer.json, and tokenizer_config.json unless the folder has one."""
    tokenizer.save(str(folder / "tokenizer.json"))
    if not (folder / "tokenizer_config.json").exists():
        text = json.dumps(config, indent=2, ensure_ascii=False)
        (folder / "tokenizer_config.json").write_text(text + "\n", encoding="utf-8")


def token_ids(fields: Mapping[str, Any]) -> dict[str, int]:
    """Give the special token ids under the names of config.json."""
    keys = {"bos_token_id": "bos_token_id", "eos_token_id": "eos_token_id", "pad_token_id": "padding_token_id"}
    result = {name: fields.get(f"tokenizer.ggml.{key}") for name, key in keys.items()}
    return {name: int(number) for name, number in result.items() if number is not None}


def _byte_level(fields: Mapping[str, Any], tokens: Sequence[str], source: str) -> tuple[Tokenizer, bool]:
    """Byte-level BPE; second, whether llama.cpp puts BOS first when the file does not say."""
    split = fields.get("tokenizer.ggml.pre", "default")
    if split not in _SPLITS and split not in _BYTE_LEVEL:
        known = ", ".join((*_BYTE_LEVEL, *_SPLITS))
        raise UserError(f"{source}: tokenizer.ggml.pre {split!r} is not supported; use a file with one of {known}")
    llama3 = _SPLITS.get(split) == _LLAMA3_SPLIT
    merges = [tuple(merge.split(" ", 1)) for merge in fields["tokenizer.ggml.merges"]]
    vocab = _vocabulary(tokens)
    unknown = [merge for merge in merges if "".join(merge) not in vocab]
    if unknown:
        raise UserError(f"{source}: merge {unknown[0]} makes a token that is not there; fetch the file again")
    tokenizer = Tokenizer(BPE(vocab, merges, ignore_merges=llama3))
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=split not in _SPLITS)
    first: list[Any] = []
    if split in _SPLITS:
        first = [pre_tokenizers.Split(Regex(_SPLITS[split]), behavior="isolated")]
    elif split == "smollm":
        # Digits stand alone before anything else is looked at: it also decides how spaces before a number are cut.
        first = [pre_tokenizers.Digits(individual_digits=True)]
    if split == "qwen2":
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*first, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer, llama3


def _sentencepiece(fields: Mapping[str, Any], tokens: Sequence[str]) -> Tokenizer:
    """SentencePiece BPE: the file has scores and no merges; the merge with the best score comes first."""
    scores = fields["tokenizer.ggml.scores"]
    types = fields.get("tokenizer.ggml.token_type") or [1] * len(tokens)
    vocab = _vocabulary(tokens)
    ranked = []
    for number, token in enumerate(tokens):
        # Not what text is never merged to: "<0x41>" is a byte, not the way to write "<", "0", "x", ...
        if types[number] in (_UNKNOWN, _CONTROL, _USER_DEFINED, _BYTE):
            continue
        halves = [(token[:cut], token[cut:]) for cut in range(1, len(token))]
        known = [(left, right) for left, right in halves if left in vocab and right in vocab]
        ranked += [(-scores[number], number, vocab[left], vocab[right], (left, right)) for left, right in known]
    merges = [pair for *_, pair in sorted(ranked)]
    unknown = tokens[fields.get("tokenizer.ggml.unknown_token_id", 0)]
    tokenizer = Tokenizer(BPE(vocab, merges, unk_token=unknown, fuse_unk=True, byte_fallback=True))
    prefixed = fields.get("tokenizer.ggml.add_space_prefix", True)
    prefix = [normalizers.Prepend("▁")] if prefixed else []
    tokenizer.normalizer = normalizers.Sequence([*prefix, normalizers.Replace(" ", "▁")])
    strip = [decoders.Strip(" ", 1, 0)] if prefixed else []
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    )
    return tokenizer


def _vocabulary(tokens: Sequence[str]) -> dict[str, int]:
    return {token: number for number, token in enumerate(tokens)}


def _tokenizer_config(fields: Mapping[str, Any], tokens: Sequence[str], adds_bos: bool) -> dict[str, Any]:
    names = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
    numbers = {name: fields.get(f"tokenizer.ggml.{key}_token_id") for name, key in names.items()}
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "add_bos_token": bool(fields.get("tokenizer.ggml.add_bos_token", adds_bos)) and numbers["bos"] is not None,
        **{f"{name}_token": tokens[number] for name, number in numbers.items() if number is not None},
    }
    template = fields.get("tokenizer.chat_template")
    return config | ({"chat_template": template} if template else {})
