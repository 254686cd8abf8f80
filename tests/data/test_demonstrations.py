"""A literal row of every format of demonstrations, and rows that are refused with the reason.

Seen to fail: with the first assistant turn taken for the response; with rows marked as bad accepted.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podium.data.demonstrations import DEMONSTRATION_FORMATS, read_demonstration
from podium.data.fields import Refused

USER = {"role": "user", "content": "Why?"}
AGAIN = {"role": "user", "content": "Really?"}
SYSTEM = {"role": "system", "content": "Be kind."}
REPLY = {"role": "assistant", "content": "So."}
LITERAL = [
    ("canonical", {"prompt": "Why?", "response": "So."}, [USER], "So."),
    ("canonical", {"prompt": [SYSTEM, USER], "response": [REPLY]}, [SYSTEM, USER], "So."),
    ("completion", {"prompt": "Why?", "completion": " So.\r\n"}, [USER], " So.\n"),
    ("completion", {"prompt": [USER], "completion": [REPLY]}, [USER], "So."),
    ("completion", {"prompt": "Why?", "completion": "So.", "label": True}, [USER], "So."),
    ("managed", {"input_text": "Why?", "output_text": "So."}, [USER], "So."),
    ("alpaca", {"instruction": "Why?", "input": "", "output": "So."}, [USER], "So."),
    ("alpaca", {"instruction": "Why?", "output": "So."}, [USER], "So."),
    ("alpaca", {"instruction": "W", "input": "x", "output": "So."}, [{"role": "user", "content": "W\n\nx"}], "So."),
    ("messages", {"messages": [USER, REPLY]}, [USER], "So."),
    ("messages", {"messages": [SYSTEM, USER, REPLY, AGAIN, REPLY]}, [SYSTEM, USER, REPLY, AGAIN], "So."),
    (
        "sharegpt",
        {"conversations": [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "So."}]},
        [USER],
        "So.",
    ),
    (
        "messages",
        {
            "messages": [{"author": "user", "content": "Why?"}, {"author": "bot", "content": "So."}],
            "context": "Be kind.",
        },
        [SYSTEM, USER],
        "So.",
    ),
]


@pytest.mark.parametrize(("name", "row", "prompt", "response"), LITERAL)
def test_literal_rows(name, row, prompt, response):
    record = read_demonstration(row)
    assert record == read_demonstration(row, name)
    assert (record.prompt, record.response) == (prompt, response)


def test_every_format_has_a_literal_row():
    assert {name for name, *_ in LITERAL} == set(DEMONSTRATION_FORMATS)


@pytest.mark.parametrize(
    ("row", "kind", "reason"),
    [
        ({"prompt": "Why?", "response": " "}, "empty", "response is empty; write a text"),
        ({"prompt": "Why?", "response": 3}, "type", "response is a number; write a text"),
        ({"prompt": "Why?", "response": [USER]}, "response", "response is a list of user; write one assistant message"),
        (
            {"prompt": "Why?", "response": None},
            "columns",
            "columns prompt fit no format of demonstrations; write prompt",
        ),
        (
            {"prompt": "Why?", "chosen": "a", "rejected": "b"},
            "columns",
            "columns chosen, prompt, rejected fit no format",
        ),
        ({"prompt": [USER, REPLY], "response": "So."}, "prompt", "prompt ends with the assistant"),
        ({"prompt": "Why?", "completion": "So.", "label": False}, "label", "label is false: an answer that was judged"),
        ({"messages": [USER, REPLY, AGAIN]}, "response", "messages ends with the user; the last one, which is learned"),
        ({"messages": [REPLY]}, "prompt", "messages is one reply without a prompt"),
        ({"messages": [REPLY, REPLY]}, "prompt", "messages before the last reply ends with the assistant"),
        ({"messages": []}, "empty", "messages is an empty list"),
        ({"prompt": "Why?", "response": "So.", "weight": -1}, "type", "weight is -1; write 0 or more"),
        ({"instruction": "", "output": "So."}, "empty", "instruction is empty"),
    ],
)
def test_refused_rows_say_why(row, kind, reason):
    with pytest.raises(Refused) as refused:
        read_demonstration(row)
    assert refused.value.kind == kind
    assert reason in str(refused.value)


def test_a_named_format_says_which_column_is_missing():
    with pytest.raises(Refused, match="no column output_text, which format managed needs"):
        read_demonstration({"input_text": "Why?", "response": "So."}, "managed")


def test_shared_columns_and_metadata():
    row = {"id": 7, "prompt": "Why?", "response": "So.", "source": "web", "weight": "0.5", "topic": "x"}
    record = read_demonstration(row)
    assert record.model_dump(exclude={"prompt", "response"}) == {
        "id": "7",
        "source": "web",
        "weight": 0.5,
        "metadata": {"topic": "x"},
    }
    assert read_demonstration(record.model_dump()) == record
    one, other = (read_demonstration({"prompt": "Why?", "response": text}).id for text in ("So.", "So!"))
    assert one != other


@given(
    row=st.dictionaries(
        st.sampled_from(["prompt", "response", "completion", "messages", "input_text", "output_text", "instruction"]),
        st.none() | st.integers() | st.text(max_size=9) | st.lists(st.sampled_from([USER, REPLY]) | st.integers()),
    )
)
def test_any_row_is_read_or_refused(row):
    try:
        record = read_demonstration(row)
    except Refused as refused:
        assert str(refused)
    else:
        assert record.prompt[-1]["role"] == "user"
        assert record.response.strip()
