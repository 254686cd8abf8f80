"""A literal row of every format, and rows that are refused with the reason."""

import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podium.data.conversations import is_transcript
from podium.data.fields import Refused
from podium.data.formats import FORMATS, check_format, read_preference
from podium.data.records import PreferenceRecord
from podium.errors import UserError

USER = {"role": "user", "content": "Why?"}
REPLY = {"role": "assistant", "content": "So."}
AGAIN = {"role": "user", "content": "And?"}
SYSTEM = {"role": "system", "content": "Be kind."}


def said(content, role="assistant"):
    return [{"role": role, "content": content}]


# format, row, prompt, responses, ranks
LITERAL = [
    ("canonical", {"prompt": [USER], "responses": ["a", "b", "c"], "ranks": [2, 1, 2]}, [USER], "abc", [2, 1, 2]),
    ("canonical", {"prompt": "Why?", "responses": ["a", "b"], "ranks": [7, 3]}, [USER], "ab", [2, 1]),
    ("pair", {"prompt": "Why?", "chosen": "a", "rejected": "b"}, [USER], "ab", [1, 2]),
    ("pair", {"prompt": [SYSTEM, USER], "chosen": said("a"), "rejected": said("b")}, [SYSTEM, USER], "ab", [1, 2]),
    ("pair", {"prompt": "Why?", "chosen": [USER, *said("a")], "rejected": [USER, *said("b")]}, [USER], "ab", [1, 2]),
    (
        "pair",
        {"prompt": "Why?", "chosen": [SYSTEM, USER, *said("a")], "rejected": [SYSTEM, USER, *said("b")]},
        [SYSTEM, USER],
        "ab",
        [1, 2],
    ),
    ("pair", {"prompt": "\n\nHuman: Why?\n\nAssistant:", "chosen": "a", "rejected": "b"}, [USER], "ab", [1, 2]),
    (
        "sharegpt",
        {
            "conversations": [{"from": "human", "value": "Why?"}],
            "chosen": {"from": "gpt", "value": "a"},
            "rejected": {"from": "gpt", "value": "b"},
        },
        [USER],
        "ab",
        [1, 2],
    ),
    (
        "messages",
        {"messages": [SYSTEM, USER], "chosen": said("a")[0], "rejected": said("b")[0]},
        [SYSTEM, USER],
        "ab",
        [1, 2],
    ),
    # The better conversation may stand in messages once more, as a demonstration.
    (
        "messages",
        {"messages": [USER, *said("a")], "chosen": [USER, *said("a")], "rejected": [USER, *said("b")]},
        [USER],
        "ab",
        [1, 2],
    ),
    ("alpaca", {"instruction": "Why?", "input": "", "chosen": "a", "rejected": "b"}, [USER], "ab", [1, 2]),
    (
        "alpaca",
        {"instruction": "W", "input": "x", "chosen": "a", "rejected": "b"},
        said("W\n\nx", "user"),
        "ab",
        [1, 2],
    ),
    (
        "question",
        {"system": "Be kind.", "question": "Why?", "chosen": "a", "rejected": "b"},
        [SYSTEM, USER],
        "ab",
        [1, 2],
    ),
    ("input", {"input": "Why?", "chosen": "a", "rejected": "b"}, [USER], "ab", [1, 2]),
    (
        "conversations",
        {"chosen": [USER, REPLY, AGAIN, *said("a")], "rejected": [USER, REPLY, AGAIN, *said("b")]},
        [USER, REPLY, AGAIN],
        "ab",
        [1, 2],
    ),
    (
        "conversations",
        {"chosen": [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "a"}], "rejected": [USER, *said("b")]},
        [USER],
        "ab",
        [1, 2],
    ),
    (
        "hh",
        {
            "chosen": "\n\nHuman: Why?\n\nAssistant: So.\n\nHuman: And?\n\nAssistant: a",
            "rejected": "\n\nHuman: Why?\n\nAssistant: So.\n\nHuman: And?\n\nAssistant: b",
        },
        [USER, REPLY, AGAIN],
        "ab",
        [1, 2],
    ),
    ("managed", {"input_text": "Why?", "candidate_0": "a", "candidate_1": "b", "choice": 1}, [USER], "ab", [2, 1]),
    ("managed", {"input_text": "Why?", "candidate_0": "a", "candidate_1": "b", "choice": "0"}, [USER], "ab", [1, 2]),
    (
        "managed",
        {
            "messages": [{"author": "user", "content": "Why?"}],
            "context": "Be kind.",
            "candidate_0": "a",
            "candidate_1": "b",
            "choice": 0.0,
        },
        [SYSTEM, USER],
        "ab",
        [1, 2],
    ),
    (
        "openai",
        {"input": {"messages": [USER], "tools": []}, "preferred_output": said("a"), "non_preferred_output": said("b")},
        [USER],
        "ab",
        [1, 2],
    ),
    (
        "ranked",
        {"prompt": [USER], "completions": [{"text": t, "rank": r} for t, r in zip("abc", (1, 3, 3), strict=True)]},
        [USER],
        "abc",
        [1, 2, 2],
    ),
    (
        "ranked_context",
        {"context": [USER], "completions": [{"rank": r, "completion": said(t)} for t, r in (("a", 1), ("b", 0))]},
        [USER],
        "ab",
        [2, 1],
    ),
    ("csv", {"prompt": "Why?", "response_a": "a", "response_b": "b", "choice": "b"}, [USER], "ab", [2, 1]),
    ("csv", {"prompt": "Why?", "response_a": "a", "response_b": "b", "choice": "response_a"}, [USER], "ab", [1, 2]),
    ("csv", {"prompt": "Why?", "response_a": "a", "response_b": "b", "choice": "Tie"}, [USER], "ab", [1, 1]),
]


@pytest.mark.parametrize(("name", "row", "prompt", "responses", "ranks"), LITERAL)
def test_literal_rows(name, row, prompt, responses, ranks):
    for format in ("auto", name):
        record = read_preference(row, format)
        assert (record.prompt, record.responses, record.ranks) == (prompt, list(responses), ranks)


def test_every_format_has_a_literal_row():
    assert {name for name, *_ in LITERAL} == set(FORMATS)


PAIR = {"prompt": "Why?", "chosen": "a", "rejected": "b"}
VERTEX = {"input_text": "Why?", "candidate_0": "a", "candidate_1": "b", "choice": 0}
RANKED = {"prompt": "Why?", "completions": [{"text": "a", "rank": 1}, {"text": "b", "rank": 2}]}


@pytest.mark.parametrize(
    ("row", "kind", "reason"),
    [
        (PAIR | {"chosen": " \n"}, "empty", "chosen is empty; write a text or leave the row out"),
        (PAIR | {"prompt": ""}, "empty", "prompt is empty"),
        (PAIR | {"chosen": "b "}, "identical", "responses 1 and 2 are the same text"),
        (PAIR | {"rejected": 3}, "type", "rejected is a number; write a text"),
        (PAIR | {"rejected": None}, "single_response", "one response per prompt, nothing to compare it with"),
        (PAIR | {"chosen": [USER, REPLY, AGAIN]}, "response", "chosen is a list of user, assistant, user"),
        (PAIR | {"chosen": [USER]}, "response", "chosen is a list of user; write one assistant message"),
        (PAIR | {"prompt": [USER, REPLY]}, "prompt", "prompt ends with the assistant; it must end with the user's"),
        (PAIR | {"prompt": [SYSTEM]}, "prompt", "prompt ends with the system"),
        (PAIR | {"prompt": []}, "empty", "prompt is an empty list"),
        (PAIR | {"prompt": [{"role": "critic", "content": "x"}]}, "role", 'has the role "critic"; write system, user'),
        (PAIR | {"prompt": [USER, {"role": "user", "content": ""}]}, "empty", "message 2 of prompt is empty"),
        (PAIR | {"prompt": [{"role": "user", "content": [{"type": "image_url"}]}]}, "type", "a part that is not text"),
        (
            PAIR | {"prompt": "No?", "chosen": [USER, *said("a")], "rejected": [USER, *said("b")]},
            "prompt",
            "begin with",
        ),
        ({"prompt": "Why?", "response": "a"}, "single_response", "write two or more (prompt, chosen, rejected)"),
        ({"prompt": "Why?", "completion": "a", "label": True}, "single_response", "one response per prompt"),
        ({"prompt": "Why?", "completions": [{"text": "a", "rank": 1}]}, "single_response", "one response per prompt"),
        ({"prompt": "Why?", "responses": ["a"], "ranks": [1]}, "single_response", "one response per prompt"),
        ({"prompt": "Why?"}, "columns", "columns prompt fit no format of compared responses; write prompt, chosen"),
        ({}, "columns", "columns none fit no format"),
        ({"prompt": "Why?", "responses": ["a", "b"], "ranks": [1]}, "ranks", "2 responses but 1 ranks"),
        ({"prompt": "Why?", "responses": ["a", "b"], "ranks": [1, 1.5]}, "type", "ranks[1] is 1.5; write a whole"),
        ({"prompt": "Why?", "completions": [{"text": "a"}, {"text": "b"}]}, "ranks", "completion 1 has no rank"),
        ({"prompt": "Why?", "completions": "ab"}, "type", "completions must be a list of objects"),
        (VERTEX | {"choice": 2}, "choice", "choice is 2; write 0 for the first candidate, 1 for the second, or tie"),
        (VERTEX | {"choice": "-1"}, "choice", 'choice is "-1"'),
        (VERTEX | {"choice": True}, "choice", "choice is true"),
        (VERTEX | {"choice": 0.5}, "choice", "choice is 0.5"),
        (VERTEX | {"input_text": None}, "columns", "neither input_text nor messages"),
        ({"chosen": "a", "rejected": "b"}, "transcript", 'add a column prompt, or begin it with "\\n\\nHuman: "'),
        ({"chosen": [REPLY], "rejected": said("b")}, "prompt", "share no turn, so there is no prompt"),
        (
            {"chosen": [USER, REPLY, AGAIN, *said("a")], "rejected": [USER, *said("b")]},
            "diverging_conversations",
            "chosen and rejected part at message 2, before the last reply of chosen",
        ),
        (
            {"chosen": [USER, REPLY, AGAIN, *said("a")], "rejected": [USER, *said("No."), AGAIN, *said("b")]},
            "diverging_conversations",
            "part at message 2, before the last reply of chosen; they must differ in the last reply only",
        ),
        ({"chosen": [USER, REPLY], "rejected": [USER, REPLY]}, "identical", "responses 1 and 2 are the same text"),
        (
            {"input": {}, "preferred_output": said("a"), "non_preferred_output": said("b")},
            "type",
            "input has no messages",
        ),
        (PAIR | {"margin": "much"}, "type", 'margin is "much"; write a finite number'),
        (PAIR | {"weight": -1}, "type", "weight is -1; write 0 or more"),
        (PAIR | {"shown_order": [0, 2]}, "record", "shown_order [0, 2] does not name every response once"),
        (PAIR | {"rater": []}, "type", "rater is a list; write a text"),
    ],
)
def test_refused_rows_say_why(row, kind, reason):
    with pytest.raises(Refused) as refused:
        read_preference(row)
    assert refused.value.kind == kind
    assert reason in str(refused.value)


def test_a_named_format_says_which_column_is_missing():
    with pytest.raises(Refused, match="no column candidate_0, candidate_1, choice, which format managed needs"):
        read_preference(PAIR, "managed")
    with pytest.raises(UserError, match="no format 'vertexx'; write auto or one of canonical, ranked"):
        check_format("vertexx", FORMATS, "data.preferences")


def test_unknown_columns_become_metadata_and_known_ones_fields():
    day = datetime.date(2026, 1, 2)
    row = PAIR | {"id": 7, "margin": "0.5", "rater": 3, "source": "web", "weight": 2, "shown_order": [1, 0]}
    record = read_preference(row | {"day": day, "tags": ("x", float("nan")), "reference": None})
    assert record.model_dump(exclude={"prompt", "responses", "ranks"}) == {
        "id": "7",
        "margin": 0.5,
        "rater": "3",
        "source": "web",
        "weight": 2.0,
        "shown_order": [1, 0],
        "metadata": {"day": "2026-01-02", "tags": ["x", "nan"]},
    }


def test_what_completions_hold_besides_is_kept():
    row = {"prompt": "Why?", "completions": [{"text": "a", "rank": 1, "system": "m1"}, {"text": "b", "rank": 2}]}
    assert read_preference(row).metadata == {"completions": [{"system": "m1"}, {}]}


def test_deep_metadata_is_refused():
    deep = 1
    for _ in range(200):
        deep = [deep]
    with pytest.raises(Refused, match="nested more than 32 deep"):
        read_preference(PAIR | {"tree": deep})


def test_carriage_returns_go_and_other_white_space_stays():
    row = {"prompt": "Why?\r\nTell", "chosen": " a\r\n b \u2028", "rejected": "b"}
    record = read_preference(row)
    assert record.prompt == read_preference(row | {"prompt": said(row["prompt"], "user")}).prompt
    assert record.prompt == said("Why?\nTell", "user")
    assert record.responses == [" a\n b \u2028", "b"]


def test_an_id_depends_on_the_content_only():
    first = read_preference(PAIR)
    assert first.id == read_preference(dict(reversed(PAIR.items()))).id
    assert first.id != read_preference(PAIR | {"chosen": "c"}).id


texts = st.text(max_size=12)
words = texts.filter(str.strip)
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["role", "content", "author", "text", "rank", "messages", "type", "value", "x"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)
COLUMNS = sorted({column for entry in FORMATS.values() for column in (*entry.columns, *entry.optional)})
shared = ["id", "margin", "rater", "source", "weight", "shown_order", "metadata", "other"]


@given(row=st.dictionaries(st.sampled_from(COLUMNS + shared), anything), name=st.sampled_from(["auto", *FORMATS]))
def test_any_row_is_read_or_refused(row, name):
    try:
        record = read_preference(row, name)
    except Refused as refused:
        assert str(refused)
    else:
        assert len(record.responses) == len(record.ranks) >= 2


@pytest.mark.parametrize(("name", "row"), [(name, row) for name, row, *_ in LITERAL])
@given(data=st.data())
def test_a_spoilt_row_is_read_or_refused(name, row, data):
    column = data.draw(st.sampled_from(sorted(row)))
    try:
        record = read_preference(row | {column: data.draw(anything)}, name)
    except Refused as refused:
        assert str(refused)
    else:
        assert len(record.responses) == len(record.ranks) >= 2


messages = st.lists(st.tuples(words, words), max_size=2).flatmap(
    lambda turns: words.map(
        lambda last: [
            *(turn for asked, told in turns for turn in (*said(asked, "user"), *said(told))),
            *said(last, "user"),
        ]
    )
)
replies = st.lists(words, min_size=2, max_size=4, unique_by=str.strip)


def plain(text):
    return "\r\n" not in text


@given(prompt=messages, responses=replies, data=st.data())
def test_a_canonical_record_comes_back(prompt, responses, data):
    ranks = data.draw(st.lists(st.integers(1, 4), min_size=len(responses), max_size=len(responses)))
    dense = [sorted(set(ranks)).index(rank) + 1 for rank in ranks]
    record = PreferenceRecord(id="x", prompt=prompt, responses=responses, ranks=dense, metadata={"k": [1]}, margin=0.5)
    row = record.model_dump()
    if all(map(plain, [*responses, *(turn["content"] for turn in prompt), f"{prompt[0]['content']}"])):
        assert read_preference(row) == record


@given(prompt=messages, pair=st.lists(words.map(str.strip), min_size=2, max_size=2, unique=True))
def test_a_transcript_is_cut_at_the_last_shared_turn(prompt, pair):
    """Replies that begin alike must not move the cut into the reply."""
    prompt = [turn | {"content": " ".join(turn["content"].split())} for turn in prompt]
    pair = ["the same start " + " ".join(reply.split()) for reply in pair]
    names = {"user": "Human", "assistant": "Assistant"}
    head = "".join(f"\n\n{names[turn['role']]}: {turn['content']}" for turn in prompt)
    chosen, rejected = (f"{head}\n\nAssistant: {reply}" for reply in pair)
    if pair[0] == pair[1] or any(not turn["content"] for turn in prompt):
        return
    record = read_preference({"chosen": chosen, "rejected": rejected})
    assert is_transcript(chosen)
    assert (record.prompt, record.responses) == (prompt, pair)
