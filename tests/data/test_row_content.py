"""Whatever a row says is read or refused: keys of messages, messages as text, columns that belong to the prompt.

Seen to fail: before these were looked at, each row here was read without what it says.
"""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podium.data.conversations import unread_keys
from podium.data.demonstrations import read_demonstration
from podium.data.fields import Refused
from podium.data.formats import read_preference
from podium.data.prompts import read_prompt

USER = {"role": "user", "content": "Why?"}
REPLY = {"role": "assistant", "content": "So."}
SYSTEM = {"role": "system", "content": "Be kind."}
HI = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ahoy"}]
GPT = {"from": "gpt", "value": "So."}
HUMAN = {"from": "human", "value": "Why?"}
PAIR = {"prompt": "Why?", "chosen": "So.", "rejected": "No."}
CALL = [{"type": "function", "function": {"name": "look", "arguments": "{}"}}]


def refusal(read, row):
    with pytest.raises(Refused) as refused:
        read(row)
    return refused.value.kind, str(refused.value)


@pytest.mark.parametrize(
    ("extra", "kind", "reason"),
    [
        ({"weight": 0}, "unlearned", "the reply in messages has weight 0: not to be learned"),
        ({"weight": 0.0}, "unlearned", "has weight 0"),
        ({"weight": "0"}, "unlearned", "has weight 0"),
        ({"weight": 0.5}, "unlearned", "has weight 0.5; write it as the weight of the row"),
        ({"weight": -1}, "type", "weight of the reply in messages is -1; write 0 or more"),
        ({"train": False}, "unlearned", "has train false: not to be learned"),
        ({"training": "false"}, "unlearned", 'has training "false"'),
        ({"loss": False}, "unlearned", "has loss false"),
        ({"loss_mask": 0}, "unlearned", "has loss_mask 0"),
        ({"train": "perhaps"}, "type", "write true or false"),
        ({"mask": True}, "unlearned", "has mask, which tools read in opposite ways; write weight 1"),
        ({"mask": 0}, "unlearned", "has mask"),
        ({"train_detail": [{"begin_offset": 0, "end_offset": 1, "train": False}]}, "unlearned", "train_detail"),
        ({"tool_calls": CALL}, "tools", "message 2 of messages has tool_calls; calls of tools are not read"),
        ({"function_call": {"name": "look"}}, "tools", "has function_call"),
        ({"reasoning_content": "Hm."}, "reasoning", "has reasoning_content, which is not read; write it into the"),
        ({"thinking": "Hm."}, "reasoning", "has thinking"),
        ({"channel": "analysis"}, "reasoning", 'of channel "analysis"'),
        ({"images": ["a.png"]}, "media", "has images; only text can be used"),
        ({"refusal": "I cannot."}, "type", "has a refusal beside its content"),
        ({"value": "Else."}, "type", "has both content and value; keep one"),
        ({"content": [{"type": "text", "text": "So."}, {"type": "image_url", "image_url": "x"}]}, "type", "not text"),
        ({"content": None, "tool_calls": CALL}, "tools", "has tool_calls"),
        ({"role": "tool"}, "tools", "message 2 of messages is of a tool (role tool)"),
    ],
)
def test_what_a_reply_says_besides_its_text(extra, kind, reason):
    found = refusal(read_demonstration, {"messages": [USER, REPLY | extra]})
    assert found[0] == kind and reason in found[1]
    if kind == "unlearned":
        # An answer in a comparison is learned too.
        row = {"prompt": "Why?", "chosen": [REPLY | extra], "rejected": "No."}
        assert refusal(read_preference, row)[0] == kind
        whole = {"chosen": [USER, REPLY | extra], "rejected": [USER, REPLY | {"content": "No."}]}
        assert refusal(read_preference, whole)[0] == kind
        assert refusal(read_demonstration, {"conversations": [HUMAN, GPT | extra]})[0] == kind


@pytest.mark.parametrize(
    "extra",
    [
        {"weight": 1, "train": True, "tool_calls": [], "reasoning_content": "", "images": None, "channel": "final"},
        {"weight": "1.0", "loss_mask": 1, "function_call": None, "refusal": None, "mask": None},
        {"content": [{"type": "text", "text": "S"}, {"type": "text", "text": "o."}]},
    ],
)
def test_keys_that_hold_nothing_change_nothing(extra):
    assert read_demonstration({"messages": [USER, REPLY | extra]}).response == "So."


def test_marks_of_other_messages_say_nothing_new():
    """Only the last reply is learned in any case."""
    turns = [USER | {"weight": 0}, REPLY | {"weight": 0, "train": False}, USER, REPLY]
    assert read_demonstration({"messages": turns}).response == "So."


@pytest.mark.parametrize("role", ["tool", "function", "observation", "function_call"])
def test_turns_of_tools(role):
    for turns in ([USER, {"role": role, "content": "4"}, USER], [HUMAN, {"from": role, "value": "4"}, HUMAN]):
        assert refusal(read_prompt, {"prompt": turns})[0] == "tools"


def test_keys_that_nobody_reads_are_named():
    turns = [USER | {"name": "ann", "lang": "en"}, GPT | {"weight": 1, "score": None}]
    assert unread_keys(turns) == {"name", "lang"}
    assert unread_keys([{"rank": 1, "completion": turns}]) == unread_keys(json.dumps(turns)) == {"name", "lang"}
    assert unread_keys('[{"role": "user", "content": ') == set()
    assert unread_keys({"score": 1}) == unread_keys("text") == unread_keys([1]) == set()


def as_text(value):
    return [json.dumps(value), json.dumps(value, indent=1), repr(value), f" {value!r}\n"]


@pytest.mark.parametrize("form", range(4))
def test_messages_as_text_are_messages(form):
    prompt, chosen = as_text([SYSTEM, USER])[form], as_text([REPLY])[form]
    rejected = as_text([REPLY | {"content": 'It\'s "no".'}])[form]
    row = {"prompt": prompt, "chosen": chosen, "rejected": rejected}
    record = read_preference(row)
    assert (record.prompt, record.responses) == ([SYSTEM, USER], ["So.", 'It\'s "no".'])
    assert read_prompt({"prompt": prompt}).prompt == [SYSTEM, USER]
    assert read_prompt(row | {"prompt": as_text([HUMAN])[form]}).prompt == [USER]
    whole = as_text([USER, REPLY])[form]
    assert read_demonstration({"messages": whole}).response == "So."
    assert read_demonstration({"conversations": as_text([HUMAN, GPT])[form]}).response == "So."
    assert read_demonstration({"prompt": "Why?", "completion": as_text(REPLY)[form]}).response == "So."
    assert read_preference({"chosen": whole, "rejected": as_text([USER, REPLY | {"content": "b"}])[form]}).prompt == [
        USER
    ]
    assert refusal(read_demonstration, {"messages": as_text([USER, REPLY | {"weight": 0}])[form]})[0] == "unlearned"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        # As numpy prints them in a CSV file that pandas wrote.
        (
            "[{'content': 'Why?', 'role': 'user'}\n {'content': 'So.', 'role': 'assistant'}]",
            "is not JSON; write the list",
        ),
        ("array([{'role': 'user', 'content': 'Why?'}], dtype=object)", "is not JSON; write the list"),
        ('[{"role": "user", "content": "Why', "is not JSON; write the list"),
        ('[{"role": "user", "content": "Why?", "content": "How?"}]', "a key stands twice: content"),
        ('{"messages": [{"role": "user", "content": "Why?"}]}', "text of an object with messages"),
        ("<|im_start|>user\nWhy?<|im_end|>\n", "begins as a chat template writes it (<|im_start|>user)"),
        ("<|start_header_id|>user<|end_header_id|>\n\nWhy?", "begins as a chat template writes it"),
        ("<s>[INST] Why? [/INST]", "begins as a chat template writes it (<s>[INST])"),
    ],
)
def test_messages_as_text_that_cannot_be_read(text, reason):
    for read, row in ((read_preference, PAIR | {"prompt": text}), (read_prompt, {"prompt": text})):
        assert reason in refusal(read, row)[1]
    assert refusal(read_preference, PAIR | {"chosen": text})[0] in ("serialised", "transcript")


def test_a_response_that_is_a_transcript():
    transcript = "\n\nHuman: Why?\n\nAssistant: So."
    assert refusal(read_demonstration, {"prompt": "Why?", "response": transcript})[0] == "transcript"
    row = {"prompt": "Why?", "chosen": transcript, "rejected": transcript.replace("So", "No")}
    assert read_preference(row).responses == ["So.", "No."]


@pytest.mark.parametrize(
    "text",
    [
        '[1, 2] and {"role": "boss"}',
        '{"value": 3, "content": "x"}',
        '{"role": "user"} is an object, what is {"from": "user"}?',
        "[see the user's note]",
        '[{"role": "admin", "content": "x"}]',
    ],
)
def test_prose_and_other_json_stay_text(text):
    assert read_preference(PAIR | {"prompt": text, "chosen": text}).responses[0] == text


@given(
    text=st.text(max_size=40) | st.from_regex(r"[\[({ ]*['\"]?(role|from)['\"]: ['\"]user['\"].{0,20}", fullmatch=True)
)
def test_any_text_is_read_or_refused(text):
    try:
        read_prompt({"prompt": text})
    except Refused as refused:
        assert str(refused)


@pytest.mark.parametrize("name", ["system", "system_prompt", "system_message", "system_instruction"])
@pytest.mark.parametrize(
    ("read", "row"),
    [
        (read_preference, PAIR),
        (read_preference, {"conversations": [HUMAN], "chosen": GPT, "rejected": GPT | {"value": "No."}}),
        (read_preference, {"prompt": "Why?", "response_a": "a", "response_b": "b", "choice": "a"}),
        (read_preference, {"chosen": [USER, REPLY], "rejected": [USER, REPLY | {"content": "No."}]}),
        (read_demonstration, {"instruction": "Why?", "input": "", "output": "So."}),
        (read_demonstration, {"messages": [USER, REPLY]}),
        (read_prompt, {"prompt": "Why?"}),
        (read_prompt, {"text": "Why?"}),
    ],
)
def test_a_column_with_the_system_message(read, row, name):
    record = read(row | {name: "Be kind."})
    assert record.prompt == [SYSTEM, USER] and not record.metadata
    assert record.id != read(row).id
    for empty in ("", None):
        assert read(row | {name: empty}).prompt == [USER]


@pytest.mark.parametrize(
    "history",
    [[["Hi", "Ahoy"]], (("Hi", "Ahoy"),), HI, '[["Hi", "Ahoy"]]', json.dumps(HI), [HI[0] | {"name": "ann"}, HI[1]]],
)
def test_a_column_with_earlier_turns(history):
    row = {"instruction": "Why?", "input": "", "output": "So.", "system": "Be kind.", "history": history}
    record = read_demonstration(row)
    assert record.prompt == [SYSTEM, *HI, USER] and not record.metadata
    assert read_preference(PAIR | {"history": history}).prompt == [*HI, USER]
    for empty in ([], "[]", "", None):
        assert read_demonstration(row | {"history": empty}).prompt == [SYSTEM, USER]


@pytest.mark.parametrize(
    ("columns", "kind", "reason"),
    [
        ({"tools": [{"name": "look"}]}, "tools", "column tools: tools are not read; leave the row out"),
        ({"functions": '[{"name": "look"}]'}, "tools", "column functions"),
        ({"images": ["a.png"]}, "media", "column images: only text can be used"),
        ({"image": {"bytes": b"x"}}, "media", "column image"),
        ({"documents": [{"text": "x"}]}, "columns", "column documents goes into the prompt and is not read"),
        ({"chat_template_kwargs": {"enable_thinking": True}}, "columns", "column chat_template_kwargs"),
        ({"context": "It rains."}, "columns", "column context is no part of this format; write its text into the"),
        ({"input": "It rains."}, "columns", "column input is no part of this format"),
        ({"instruction": "Be brief."}, "columns", "column instruction is no part of this format"),
        ({"history": [["Hi"]]}, "type", "write a list of [user's turn, reply]"),
        ({"history": "Hi"}, "type", "write a list of [user's turn, reply]"),
        ({"history": [["Hi", ""]]}, "empty", "reply 1 of history is empty"),
        ({"system": 3}, "type", "system is a number; write a text"),
        ({"system": "a", "system_prompt": "b"}, "columns", "two system messages; keep one"),
        ({"prompt": [SYSTEM, USER], "system": "Be rude."}, "columns", "two system messages; keep one"),
        ({"prompt": [*HI, USER], "history": [["Hi", "Ahoy"]]}, "columns", "both hold earlier turns; keep one"),
    ],
)
def test_columns_that_the_model_would_have_to_see(columns, kind, reason):
    rows = (
        (read_preference, PAIR),
        (read_prompt, {"prompt": "Why?"}),
        (read_demonstration, {"prompt": "Why?", "response": "So."}),
    )
    for read, row in rows:
        found = refusal(read, row | columns)
        assert found[0] == kind and reason in found[1]


def test_such_columns_that_hold_nothing_are_fine():
    empty = {"tools": [], "images": None, "functions": "[]", "context": "", "documents": "null", "input": {}}
    assert read_preference(PAIR | empty).prompt == [USER]


@pytest.mark.parametrize(
    "row",
    [
        {"input_text": "Why?", "messages": [USER]},
        {"input_text": "Why?", "context": "Be kind."},
        {"input": {"messages": [USER], "tools": CALL}},
        {"input": {"messages": [USER], "documents": ["x"]}},
        {"messages": [SYSTEM, USER], "context": "Be kind."},
        {"question": "Why?", "context": "It rains."},
    ],
)
def test_a_format_that_would_leave_a_part_out(row):
    assert refusal(read_prompt, row)[0] in ("columns", "tools")


@pytest.mark.parametrize(
    "mark",
    [{"label": "False"}, {"kto_tag": False}, {"kto_tag": "0"}, {"train": False}, {"trainable": 0}, {"label": "false"}],
)
def test_a_row_that_is_marked_as_bad(mark):
    row = {"prompt": "Why?", "completion": "So."}
    assert refusal(read_demonstration, row | mark)[0] in mark
    good = dict.fromkeys(mark, True) | {"weight": 0}
    assert read_demonstration(row | good).weight == 0
    assert read_demonstration(row | {"label": 0}).metadata == {"label": 0}
