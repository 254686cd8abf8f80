"""The tokenizer writes what the model's own chat template writes, and its padding is never an end."""

import json
import logging

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from podium.data.tokenizer import load_tokenizer
from podium.errors import UserError
from support import chat_tokenizers as chat
from support.folders import write_folder, write_t5_tokenizer

QUESTION = [{"role": "user", "content": "Where is the answer?"}]
LONG = [
    {"role": "user", "content": "Hello"},
    {"role": "assistant", "content": "the"},
    {"role": "user", "content": "grüß dich 🙂"},
]
SYSTEM = [{"role": "system", "content": "Be kind."}, *QUESTION]


@pytest.fixture(scope="module")
def load(tmp_path_factory):
    def write(template=chat.CHATML, **options):
        return load_tokenizer(chat.write_chat_tokenizer(tmp_path_factory.mktemp("model"), template, **options))

    return write


@pytest.fixture(scope="module")
def chatml(load):
    return load()


@pytest.fixture(scope="module")
def raw_words(load):
    return load(None, words=True)


def whole(tokenizer, messages, reply):
    """Encode prompt and reply in one piece, by the template alone."""
    text = tokenizer.hf.apply_chat_template([*messages, {"role": "assistant", "content": reply}], tokenize=False)
    return tokenizer.hf(text, add_special_tokens=False).input_ids


@pytest.mark.parametrize("words", [False, True])
@pytest.mark.parametrize("reply", ["the answer", "It is here. ", "Ünï 🙂\nand more"])
@pytest.mark.parametrize("messages", [QUESTION, LONG])
@pytest.mark.parametrize("template", ["CHATML", "CHATML_WITHOUT_PROMPT", "LLAMA2", "GEMMA"])
def test_prompt_and_response_are_the_templates_own(load, template, messages, reply, words):
    tokenizer = load(getattr(chat, template), words=words)
    parts = tokenizer.encode_prompt(messages) + tokenizer.encode_response(reply)
    assert whole(tokenizer, messages, reply)[: len(parts)] == parts
    assert parts[-1] == tokenizer.end_id


def test_chatml_ids_are_spelled_out(chatml):
    to_id = chatml.hf.convert_tokens_to_ids
    prompt = chatml.encode_prompt(SYSTEM)
    assert [prompt.count(to_id(name)) for name in ("<|im_start|>", "<|im_end|>")] == [3, 2]
    assert chatml.hf.decode(prompt).endswith("Where is the answer?<|im_end|>\n<|im_start|>assistant\n")
    assert chatml.encode_response("the", end=False) == chatml.encode_response("the")[:-1]
    assert chatml.encode_response("the")[-1] == to_id("<|im_end|>")


def test_ends_are_the_tokenizers_the_templates_and_the_generation_settings(tmp_path):
    folder = chat.write_chat_tokenizer(tmp_path)
    assert load_tokenizer(folder).eos_ids == (0, 2)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [7, 99999]}))
    assert load_tokenizer(folder).eos_ids == (0, 2, 7)


@pytest.mark.parametrize(
    ("pad", "template", "expected"),
    [
        ("<|im_end|>", chat.CHATML, "<|spare|>"),  # its own padding ends a turn; <|spare|> is the begin token
        ("<|endoftext|>", None, "<|im_start|>"),
        (None, None, "<|im_start|>"),
        ("<|spare|>", chat.CHATML, "<|spare|>"),
    ],
)
def test_padding_is_never_an_end(load, pad, template, expected):
    tokenizer = load(template, pad=pad)
    assert tokenizer.pad_id not in tokenizer.eos_ids
    if (pad, template) != ("<|im_end|>", chat.CHATML):
        assert tokenizer.hf.convert_ids_to_tokens(tokenizer.pad_id) == expected
    else:
        # Every special token ends, begins or marks a turn: the lowest other id is left.
        assert tokenizer.pad_id == 1


@pytest.mark.parametrize(
    ("more", "expected"), [(("<|idle|>", "<|last|>"), "<|idle|>"), (("<|idle|>", "<|my_pad|>"), "<|my_pad|>")]
)
def test_an_idle_special_token_is_the_padding(load, more, expected):
    tokenizer = load(more=more)
    assert tokenizer.hf.convert_ids_to_tokens(tokenizer.pad_id) == expected


def test_raw_text_where_there_is_no_template(load):
    tokenizer = load(None)
    assert not tokenizer.has_template
    assert tokenizer.hf.decode(tokenizer.encode_prompt(SYSTEM)) == "Be kind.\n\nWhere is the answer?"
    assert tokenizer.encode_response(" the")[-1] == tokenizer.hf.eos_token_id == tokenizer.end_id


def test_a_continuation_gets_no_word_start(raw_words):
    together = raw_words.hf("Is that the", add_special_tokens=False).input_ids
    parts = raw_words.encode_prompt([{"role": "user", "content": "Is that"}]) + raw_words.encode_response(" the")
    assert parts == [*together, raw_words.end_id]


@given(text=st.text(max_size=30))
@example(text=" the answer")
@example(text="\n\nthe")
def test_a_reply_comes_back_from_its_ids(raw_words, text):
    assert raw_words.decode(raw_words.encode_response(text)) == text.replace("▁", " ")


@given(text=st.text(max_size=30))
def test_a_reply_comes_back_from_its_ids_in_a_chat(chatml, text):
    assert chatml.decode(chatml.encode_response(text)) == text


def test_decode_leaves_control_tokens_out(chatml):
    ids = [chatml.pad_id, *chatml.encode_response("the answer"), chatml.pad_id, *chatml.eos_ids]
    assert chatml.decode(ids) == "the answer"


@pytest.mark.parametrize("template", ["GEMMA", "LLAMA2"])
def test_a_template_that_refuses_or_loses_the_system_message(load, template):
    tokenizer = load(getattr(chat, template))
    with pytest.raises(UserError, match=r"takes no system message; leave out data\.instruction"):
        tokenizer.encode_prompt(SYSTEM)
    assert tokenizer.encode_prompt(QUESTION)


def test_a_template_that_refuses_the_order_of_turns(load):
    with pytest.raises(UserError, match="refuses this conversation: Conversation roles must alternate"):
        load(chat.GEMMA).encode_prompt([*QUESTION, *QUESTION])


def test_a_template_whose_reply_does_not_follow_its_prompt(load):
    other = chat.CHATML.replace("assistant\n' }}{% endif", "helper\n' }}{% endif")
    with pytest.raises(
        UserError, match=r"not go on from the generation prompt, which ends with 'helper.n' and is not in"
    ):
        load(other)


@pytest.mark.parametrize("opened", ["<think>", "<think>\\n", "<|begin_of_thought|>\\n", "[THINK]"])
def test_a_generation_prompt_that_opens_a_block_of_thought(load, opened):
    """Seen to fail: DeepSeek's distilled models, whose finished turns have no such block, were refused."""
    tokenizer = load(chat.CHATML.replace("assistant\n' }}{% endif", f"assistant\n{opened}' }}}}{{% endif"))
    prompt = tokenizer.hf.decode(tokenizer.encode_prompt(QUESTION))
    assert prompt.endswith("<|im_start|>assistant\n" + opened.replace("\\n", "\n"))
    assert tokenizer.hf.decode(tokenizer.encode_response("So.")) == "So.<|im_end|>"
    assert tokenizer.control_token_in("<think>Hm.</think> So.") is None


def test_tokens_of_a_template_count_whatever_their_flag(tmp_path):
    """Seen to fail: a reply ended with the tokenizer's own end, and texts could forge turns."""
    content = json.loads((chat.write_chat_tokenizer(tmp_path, pad=None) / "tokenizer.json").read_text())
    content["added_tokens"] = [
        token | {"special": token["content"] == "<|endoftext|>", "id": token["id"]} for token in content["added_tokens"]
    ]
    # White space and words that were added to the vocabulary are no marks.
    content["added_tokens"] += [
        {**content["added_tokens"][0], "id": 340 + place, "content": text, "special": False}
        for place, text in enumerate(("\n", "user", "<think>"))
    ]
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**config, "bos_token": None}))
    tokenizer = load_tokenizer(tmp_path)
    end = tokenizer.hf.convert_tokens_to_ids("<|im_end|>")
    assert tokenizer.end_id == tokenizer.encode_response("the")[-1] == end and end in tokenizer.eos_ids
    assert tokenizer.control_token_in("a<|im_start|>b") == "<|im_start|>"
    assert tokenizer.control_token_in("a<|im_end|>b") == "<|im_end|>"
    assert tokenizer.control_token_in("user\n<think>") is None
    assert tokenizer.decode(tokenizer.encode_response("the") + tokenizer.encode_response("x")) == "thex"


def test_the_day_in_a_template_does_not_move(load):
    tokenizer = load(chat.DATED)
    assert tokenizer.hf.decode(tokenizer.encode_prompt(QUESTION)).startswith("2024-")


def test_control_tokens_in_a_text_are_found(chatml):
    assert chatml.control_token_in("Stop.<|im_end|>\n<|im_start|>user") == "<|im_end|>"
    assert chatml.control_token_in("a < b | c > d") is None


def test_an_encoder_decoder_reads_two_texts(tmp_path):
    """The prompt keeps its end and the response begins like a text; as a continuation neither is so."""
    write_t5_tokenizer(tmp_path)
    apart, joined = load_tokenizer(tmp_path, apart=True), load_tokenizer(tmp_path)
    whole_text = [*apart.hf.convert_tokens_to_ids(["▁", "w", "h", "o", "?"]), 1]
    question = [{"role": "user", "content": "who?"}]
    assert apart.encode_prompt(question) == whole_text == apart.encode_response("who?")
    assert joined.encode_prompt(question) == whole_text[:-1]
    assert joined.encode_response("who?") == whole_text[1:]
    assert apart.encode_response("who?", end=False) == whole_text[:-1]
    assert apart.decode(whole_text) == "who?"
    assert joined.decode(whole_text) == " who?"
    assert (apart.pad_id, apart.eos_ids, apart.end_id) == (0, (1,), 1)


def test_same_as_tells_what_gives_other_ids(load, tmp_path):
    chatml = load()
    assert chatml.same_as(load())
    for other in (load(chat.LLAMA2), load(None), load(words=True), load(more=("<|idle|>",))):
        assert not chatml.same_as(other) and not other.same_as(chatml)
    write_t5_tokenizer(tmp_path)
    apart = load_tokenizer(tmp_path, apart=True)
    assert apart.same_as(load_tokenizer(tmp_path, apart=True))
    assert not apart.same_as(load_tokenizer(tmp_path))
    # One vocabulary, cut in another way.
    content = json.loads((tmp_path / "tokenizer.json").read_text())
    content["pre_tokenizer"]["prepend_scheme"] = "never"
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    again = load_tokenizer(tmp_path, apart=True)
    assert again.hf.get_vocab() == apart.hf.get_vocab() and not apart.same_as(again)


def test_saved_and_loaded_it_is_the_same(load, tmp_path):
    for template in (chat.CHATML, None):
        tokenizer = load(template)
        folder = tmp_path / str(bool(template))
        tokenizer.save(folder)
        again = load_tokenizer(folder)
        assert (again.pad_id, again.eos_ids, again.turn) == (tokenizer.pad_id, tokenizer.eos_ids, tokenizer.turn)
        assert again.encode_prompt(QUESTION) == tokenizer.encode_prompt(QUESTION)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("PreTrainedTokenizerFast", "PreTrainedTokenizerFast"),
        ("TokenizersBackend", "PreTrainedTokenizerFast"),
        (None, "PreTrainedTokenizerFast"),
        ("LlamaTokenizerFast", "LlamaTokenizerFast"),
    ],
)
def test_what_is_saved_can_be_read_by_older_programs(tmp_path, given, kept):
    """Seen to fail: version 5 of transformers writes a class that version 4 does not know."""
    folder = chat.write_chat_tokenizer(tmp_path / "model", words=True)
    config = json.loads((folder / "tokenizer_config.json").read_text()) | {
        "tokenizer_class": given,
        "additional_special_tokens": ["<|im_start|>"],
    }
    (folder / "tokenizer_config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not None}))
    tokenizer = load_tokenizer(folder)
    tokenizer.save(tmp_path / "saved")
    written = json.loads((tmp_path / "saved" / "tokenizer_config.json").read_text())
    assert written["tokenizer_class"] == kept
    assert not {"is_local", "local_files_only", "backend", "extra_special_tokens"} & set(written)
    assert written["additional_special_tokens"] == ["<|im_start|>"]
    again = load_tokenizer(tmp_path / "saved")
    assert again.same_as(tokenizer) and again.hf.all_special_tokens == tokenizer.hf.all_special_tokens


def test_a_folder_without_a_tokenizer(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError) as error:
        load_tokenizer(tmp_path)
    assert str(error.value).startswith(f"{tmp_path}: no tokenizer.json in this model folder; copy")


@pytest.mark.parametrize("name", ["/nowhere/model", "./nowhere", "gs://bucket/model"])
def test_no_such_folder(name):
    with pytest.raises(UserError) as error:
        load_tokenizer(name)
    assert str(error.value).startswith(f"{name}: no such model folder; write the path of a folder")


def test_an_id_in_the_config_that_is_nobodys_is_no_warning(tmp_path):
    """Published Llamas have a pad_token_id of -1."""
    heard = []
    handler = logging.Handler()
    handler.emit = heard.append
    logging.getLogger("transformers").addHandler(handler)
    try:
        load_tokenizer(write_folder(tmp_path, pad_token_id=-1))
    finally:
        logging.getLogger("transformers").removeHandler(handler)
    assert not [record.getMessage() for record in heard]


def test_a_file_is_no_model_folder(tmp_path):
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    with pytest.raises(UserError, match=r"model\.gguf: is a file; write a model folder \(`podium import-weights`"):
        load_tokenizer(tmp_path / "model.gguf")


def test_a_damaged_tokenizer(tmp_path):
    chat.write_chat_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text('{"version": ')
    with pytest.raises(UserError, match="its tokenizer cannot be loaded"):
        load_tokenizer(tmp_path)


def test_a_tokenizer_without_an_end(tmp_path):
    chat.write_chat_tokenizer(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    with pytest.raises(UserError, match=r"names no eos_token; write it into tokenizer_config\.json"):
        load_tokenizer(tmp_path)


def test_the_stories_model(data_dir):
    tokenizer = load_tokenizer(data_dir / "model-stories260k")
    prompt = tokenizer.encode_prompt([{"role": "user", "content": "Once upon"}])
    response = tokenizer.encode_response(" a time, there was")
    assert [*prompt, *response[:-1]] == tokenizer.hf("Once upon a time, there was").input_ids
    assert (tokenizer.pad_id, tokenizer.eos_ids, tokenizer.vocab_size) == (0, (2,), 512)
