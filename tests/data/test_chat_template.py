"""A chat template is a program of others: whatever it raises is one line, and it cannot run or grow for ever."""

import json

import pytest

from podium.data import template_trial
from podium.data.template_trial import TemplateFailed, try_template
from podium.data.tokenizer import load_tokenizer
from podium.errors import UserError
from support import chat_tokenizers as chat

QUESTION = [{"role": "user", "content": "a"}]


def refusal(folder):
    with pytest.raises(UserError) as error:
        load_tokenizer(folder)
    assert "\n" not in str(error.value) and len(str(error.value)) < 500
    return str(error.value).removeprefix(f"{folder}")


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{% if tools|length > 0 %}{% endif %}", "object of type 'NoneType' has no len()"),
        ("{{ messages[7]['content'] + 'x' }}", "no element 7"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{{ messages[0].content.no.more }}", "has no attribute 'no'"),
        ("{% for m in messages %}", "Unexpected end of template"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "recursion"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
        ("{{ raise_exception('First.\\nSecond.') }}", "First."),
        ("{{ range(10 ** 9) }}", "Range too big"),
        ("{{ messages | tojson(indent=messages) }}", ""),
    ],
)
def test_whatever_a_template_raises_is_one_line(tmp_path, template, reason):
    """Seen to fail: errors of Python, as that of a template that takes tools for granted, were tracebacks."""
    found = refusal(chat.write_chat_tokenizer(tmp_path, template))
    assert found.startswith(": its chat template does not render a question and an answer: ")
    assert reason in found


def test_an_error_for_one_conversation_alone_is_its_own(tmp_path):
    template = chat.CHATML + "{% if messages | length == 3 %}{{ 1 / 0 }}{% endif %}"
    tokenizer = load_tokenizer(chat.write_chat_tokenizer(tmp_path, template))
    with pytest.raises(UserError, match="chat template refuses this conversation: division by zero"):
        tokenizer.encode_prompt([*QUESTION, {"role": "assistant", "content": "b"}, *QUESTION])


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", "needs more than 1 seconds"),
        ("{{ 10 ** (10 ** 9) }}", "needs more than 1 seconds"),
        ("{{ 'a' * 10 ** 11 }}", "0.25 GiB"),
        ("{% set n = namespace(x='ab') %}{% for i in range(99) %}{% set n.x = n.x ~ n.x %}{% endfor %}", "0.25 GiB"),
        ("{{ 'a'.ljust(10 ** 11) }}", "0.25 GiB"),
        ("{% for a in range(99999) %}{{ 'aaaaaaaaaaaaaaaa' }}{% endfor %}", "writes more than 1,000,000 characters"),
        ("{# " + "x" * 1_000_000 + " #}", "it has 1,000,006 characters, more than 1,000,000"),
        ("{% generation %}{{ 'a' * 10 ** 11 }}{% endgeneration %}", "0.25 GiB"),
        (
            "{% for a in messages %}{{ strftime_now('%Y') ~ ({} | tojson) ~ 'a' * 10 ** 11 }}{% break %}{% endfor %}",
            "GiB",
        ),
    ],
)
def test_an_endless_or_huge_template_is_ended(tmp_path, monkeypatch, template, reason):
    monkeypatch.setattr(template_trial, "SECONDS", 1)
    monkeypatch.setattr(template_trial, "BYTES", 2**28)
    assert reason in refusal(chat.write_chat_tokenizer(tmp_path, template))


def test_a_template_within_the_limits_is_left_to_who_renders_it():
    for template in (chat.CHATML, "{{ 1 / 0 }}", "{% nothing %}"):
        try_template(template, QUESTION, {"add_generation_prompt": True, "eos_token": "</s>"})
    with pytest.raises(TemplateFailed, match="writes more than"):
        try_template("{% for a in range(99999) %}{{ eos_token }}{% endfor %}", QUESTION, {"eos_token": "</s>" * 9})


def with_config(folder, **changes):
    chat.write_chat_tokenizer(folder, None)
    config = json.loads((folder / "tokenizer_config.json").read_text()) | changes
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def test_several_templates_of_which_none_is_the_default(tmp_path):
    """Seen to fail: a traceback of transformers."""
    named = [{"name": "tool_use", "template": chat.CHATML}, {"name": "rag", "template": chat.CHATML}]
    found = refusal(with_config(tmp_path / "none", chat_template=named))
    assert found == ": its tokenizer has the chat templates rag, tool_use and none called default; write one"
    named.append({"name": "default", "template": chat.GEMMA})
    tokenizer = load_tokenizer(with_config(tmp_path / "one", chat_template=named))
    assert tokenizer.turn.strips and tokenizer.has_template


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("tokenizer_config.json", [], "tokenizer_config.json: holds a list, not an object"),
        ("tokenizer_config.json", {"eos_token": 5}, "tokenizer_config.json: eos_token is 5; write the token as a text"),
        ("tokenizer_config.json", {"eos_token": {"content": 5}}, "write the token as a text"),
        ("tokenizer_config.json", {"chat_template": 7}, "chat_template is 7; write a text, or a list of name"),
        ("tokenizer_config.json", {"chat_template": ["x"]}, 'chat_template is ["x"]; write a text'),
        ("tokenizer_config.json", {"model_max_length": "x"}, 'model_max_length is "x"; write a number'),
        ("tokenizer_config.json", {"tokenizer_class": 7}, "tokenizer_class is 7; write its name"),
        ("special_tokens_map.json", "x", "special_tokens_map.json: holds a str, not an object"),
        ("special_tokens_map.json", {"unk_token": ""}, 'unk_token is ""; write the token as a text'),
        ("special_tokens_map.json", {"pad_token": ["x"]}, 'pad_token is ["x"]; write the token'),
        ("generation_config.json", 3, "generation_config.json: holds a int, not an object"),
        ("generation_config.json", {"eos_token_id": "2"}, 'eos_token_id is "2"; write a token id, or a list of them'),
        ("generation_config.json", {"eos_token_id": [True]}, "eos_token_id is [true]; write a token id"),
        ("generation_config.json", {"eos_token_id": {"a": 1}}, "write a token id"),
        ("tokenizer.json", [1], "its tokenizer cannot be loaded ("),
        ("added_tokens.json", [1], "added_tokens.json: holds a list, not an object"),
    ],
)
def test_files_beside_a_tokenizer_that_hold_something_else(tmp_path, file, content, reason):
    """Some were tracebacks, an end of another type was passed over."""
    chat.write_chat_tokenizer(tmp_path)
    (tmp_path / file).write_text(json.dumps(content))
    assert reason in refusal(tmp_path)


def test_a_file_nested_too_deeply(tmp_path):
    chat.write_chat_tokenizer(tmp_path)
    (tmp_path / "generation_config.json").write_text("[" * 100_000)
    assert "generation_config.json: not readable as JSON (" in refusal(tmp_path)
