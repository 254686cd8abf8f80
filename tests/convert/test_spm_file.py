"""Sentencepiece models in, without that library.

On Gemma 3's vocabulary, 902 texts of shared/data got the ids that the library itself gives; on a unigram model that it
had trained on such texts, with T5's normalization, 404 did.
"""

import json
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from podium.convert.gguf_tokenizer import build_tokenizer
from podium.convert.spm_file import BPE, llama_fields, read_spm
from podium.convert.spm_tokenizer import complete_tokenizer
from podium.errors import UserError
from support.folders import write_json, write_tokenizer
from support.spm import BYTES, PIECES, SPECIALS, T5_OPTIONS, UNIGRAM, USER_DEFINED, write_spm


def test_reads_every_field_that_decides_ids(tmp_path: Path) -> None:
    model = read_spm(write_spm(tmp_path / "m", pad_id=7, precompiled_charsmap=b"\x00\xff" * 200))
    assert list(zip(model.pieces, model.scores, model.types, strict=True)) == PIECES
    assert (model.kind, model.byte_fallback, model.add_prefix, model.merge_spaces) == (BPE, True, True, False)
    assert model.ids == {"unk": 0, "bos": 1, "eos": 2, "pad": 7}
    assert model.charsmap == b"\x00\xff" * 200
    assert read_spm(write_spm(tmp_path / "m")).ids["pad"] == -1
    assert not read_spm(write_spm(tmp_path / "m", add_dummy_prefix=False)).add_prefix


def test_the_tokenizer_merges_by_score_and_writes_the_unknown_as_bytes(tmp_path: Path) -> None:
    tokenizer, config = build_tokenizer(llama_fields(write_spm(tmp_path / "m")), "m")
    # Worked by hand: h e l l o -> he (-1), ▁he (-2), ll (-3), ▁hell (-4), ▁hello (-6).
    assert tokenizer.encode("hello").tokens == ["<s>", "▁hello"]
    assert tokenizer.encode("hé").tokens == ["<s>", "▁", "h", "<0xC3>", "<0xA9>"]
    assert tokenizer.decode(tokenizer.encode("hello hé").ids) == "hello hé"
    assert (config["bos_token"], config["eos_token"], config["add_bos_token"]) == ("<s>", "</s>", True)


def test_text_is_never_merged_to_a_byte_or_a_control_token(tmp_path: Path) -> None:
    letters = [(letter, -9.0, 1) for letter in "▁<0x41>"]
    parts = [("<0", -1.0, 1), ("x4", -1.0, 1), ("1>", -1.0, 1), ("<0x4", -1.0, 1), ("  ", -1.0, USER_DEFINED)]
    fields = llama_fields(write_spm(tmp_path / "m", [*SPECIALS, *BYTES, *dict.fromkeys(letters), *parts]))
    tokenizer, _ = build_tokenizer(fields, "m")
    assert tokenizer.encode("<0x41>", add_special_tokens=False).tokens == ["▁", "<0x4", "1>"]


@pytest.mark.parametrize(
    "options",
    [{"model_type": 1}, {"byte_fallback": False}, {"precompiled_charsmap": b"x"}, {"remove_extra_whitespaces": True}],
)
def test_refuses_what_cuts_text_in_another_way_than_llama(options: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no tokenizer of a Llama"):
        llama_fields(write_spm(tmp_path / "m", **options))


def test_refuses_other_files(tmp_path: Path) -> None:
    path = write_spm(tmp_path / "tokenizer.model")
    whole = path.read_bytes()
    for content in (b"", b"no model\n", whole[:-3], whole[:100], b"\xff" * 40):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"tokenizer\.model: not a readable sentencepiece model"):
            read_spm(path)
    path.write_bytes(b"IQ== 0\nIg== 1\n")
    with pytest.raises(UserError, match="has the form of Llama 3"):
        read_spm(path)
    path.unlink()
    with pytest.raises(UserError, match=r"tokenizer\.model: no such file"):
        read_spm(path)


def test_completes_a_folder_of_t5(tmp_path: Path) -> None:
    """As Google's T5 1.1 are published: spiece.model alone, and 100 sentinels that are not in it."""
    write_spm(tmp_path / "spiece.model", UNIGRAM, **T5_OPTIONS)
    write_json(tmp_path / "config.json", {"model_type": "t5"})
    complete_tokenizer(tmp_path)
    (tmp_path / "spiece.model").unlink()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    # "▁he" + "llo" has -9, "▁hell" + "o" -10.5.
    assert tokenizer.tokenize("hello") == ["▁he", "llo"]
    assert tokenizer("hello <extra_id_0>").input_ids == [4, 5, len(UNIGRAM) + 99, 1]
    assert (len(tokenizer), tokenizer.eos_token_id, tokenizer.pad_token_id) == (len(UNIGRAM) + 100, 1, 0)


def test_reads_how_many_sentinels_there_are(tmp_path: Path) -> None:
    write_spm(tmp_path / "spiece.model", UNIGRAM, **T5_OPTIONS)
    write_json(tmp_path / "tokenizer_config.json", {"extra_ids": 0})
    complete_tokenizer(tmp_path)
    assert len(json.loads((tmp_path / "tokenizer.json").read_text())["model"]["vocab"]) == len(UNIGRAM)


def test_completes_a_folder_of_llama_and_leaves_others_alone(tmp_path: Path) -> None:
    write_spm(tmp_path / "tokenizer.model")
    write_json(tmp_path / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "</s>"})
    complete_tokenizer(tmp_path)
    assert AutoTokenizer.from_pretrained(tmp_path).tokenize("hello") == ["▁hello"]
    assert json.loads((tmp_path / "tokenizer_config.json").read_text())["eos_token"] == "</s>"
    write_tokenizer(tmp_path)
    before = (tmp_path / "tokenizer.json").read_bytes()
    complete_tokenizer(tmp_path)
    assert (tmp_path / "tokenizer.json").read_bytes() == before
    (tmp_path / "tokenizer.json").unlink()
    (tmp_path / "tokenizer.model").rename(tmp_path / "spiece.model")
    with pytest.raises(UserError, match=r"spiece\.model: is no tokenizer of a T5"):
        complete_tokenizer(tmp_path)
