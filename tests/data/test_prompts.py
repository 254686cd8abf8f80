"""A literal row of every prompt format, and rows that are refused with the reason."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podium.data.fields import Refused
from podium.data.prompts import PROMPT_FORMATS, read_prompt

USER = {"role": "user", "content": "Why?"}
SYSTEM = {"role": "system", "content": "Be kind."}
REPLY = {"role": "assistant", "content": "So."}
LITERAL = [
    ("prompt", {"prompt": "Why?"}, [USER]),
    ("prompt", {"prompt": [SYSTEM, USER]}, [SYSTEM, USER]),
    ("prompt", {"prompt": "\n\nHuman: Why?\n\nAssistant: So.\n\nHuman: Why?\n\nAssistant:"}, [USER, REPLY, USER]),
    ("managed", {"input_text": "Why?"}, [USER]),
    ("messages", {"messages": [USER], "tags": ["x"]}, [USER]),
    ("messages", {"messages": [{"author": "user", "content": "Why?"}], "context": "Be kind."}, [SYSTEM, USER]),
    ("openai", {"input": {"messages": [USER]}}, [USER]),
    ("sharegpt", {"conversations": [{"from": "human", "value": "Why?"}]}, [USER]),
    ("alpaca", {"instruction": "Why?", "input": "", "output": "So."}, [USER]),
    ("question", {"question": "Why?", "chosen": "So.", "rejected": "No."}, [USER]),
    ("context", {"context": [USER]}, [USER]),
    ("text", {"text": "Once upon", "toxicity": 0.1}, [{"role": "user", "content": "Once upon"}]),
    ("conversations", {"chosen": "\n\nHuman: Why?\n\nAssistant: So."}, [USER]),
    ("conversations", {"chosen": [USER, REPLY], "rejected": [USER, REPLY]}, [USER]),
]


@pytest.mark.parametrize(("name", "row", "prompt"), LITERAL)
def test_literal_rows(name, row, prompt):
    assert read_prompt(row).prompt == read_prompt(row, name).prompt == prompt


def test_every_format_has_a_literal_row():
    assert {name for name, *_ in LITERAL} == set(PROMPT_FORMATS)


@pytest.mark.parametrize(
    ("row", "kind", "reason"),
    [
        ({"prompt": "\t"}, "empty", "prompt is empty"),
        ({"prompt": 3}, "type", "prompt is a number; write a text or a list of messages"),
        ({"messages": [USER, REPLY]}, "prompt", "messages ends with the assistant"),
        ({"query": "Why?"}, "columns", "columns query hold no prompt; write prompt"),
        ({"prompt": None}, "columns", "columns none hold no prompt"),
        ({"chosen": "So."}, "transcript", "chosen is not a transcript"),
    ],
)
def test_refused_rows_say_why(row, kind, reason):
    with pytest.raises(Refused) as refused:
        read_prompt(row)
    assert refused.value.kind == kind
    assert reason in str(refused.value)


def test_a_named_format_says_which_column_is_missing():
    with pytest.raises(Refused, match="no column input_text, which format managed needs"):
        read_prompt({"prompt": "Why?"}, "managed")


def test_metadata_holds_the_unknown_columns_but_no_answers():
    row = {"id": "q1", "prompt": "Why?", "chosen": "a", "rejected": "b", "source": "web", "topic": "x"}
    record = read_prompt(row)
    assert record.model_dump(exclude={"prompt"}) == {"id": "q1", "source": "web", "metadata": {"topic": "x"}}
    assert read_prompt(record.model_dump()) == record


@given(
    row=st.dictionaries(
        st.sampled_from(["prompt", "messages", "input_text", "input", "text", "chosen", "context", "id", "source"]),
        st.none() | st.integers() | st.text(max_size=9) | st.lists(st.just(USER) | st.integers() | st.text(max_size=3)),
    )
)
def test_any_row_is_read_or_refused(row):
    try:
        record = read_prompt(row)
    except Refused as refused:
        assert str(refused)
    else:
        assert record.prompt[-1]["role"] == "user"
