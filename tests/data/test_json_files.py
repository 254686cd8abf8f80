"""JSON as people and tools write it gives its rows with their lines; keys given twice, endless values are refused."""

import json

import pytest

from podium.data.sources import Refusal, Row, parse_rows
from podium.errors import UserError

ROWS = [
    {"prompt": "a, b", "chosen": "}\n{", "n": [1, 2.5, None]},
    {"prompt": "c", "chosen": "\u2028", "n": {"x": True}},
]
PRETTY = [json.dumps(row, indent=2, ensure_ascii=False) for row in ROWS]
PLAIN = [json.dumps(row, ensure_ascii=False) for row in ROWS]
LISTED = json.dumps(ROWS, indent=1)


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("\n".join(PRETTY), [1, 10]),
        ("\n\n".join(PRETTY) + "\n", [1, 11]),
        (",\n".join(PRETTY), [1, 10]),
        (",\n".join(PLAIN), [1, 2]),
        (",\n".join(PLAIN) + ",\n", [1, 2]),
        ("".join(PLAIN), [1, 1]),
        (" ".join(PLAIN), [1, 1]),
        ("\r".join(PLAIN), [1, 1]),
        (f'{{"version": "1", "data": {LISTED}}}', [2, 11]),
        (f'{{"data": {LISTED},\n "pages": [1, 2], "more": {{"a": [3]}}}}', [2, 11]),
        (f'\n{{"x": "data\\"", "\\u0064ata": {json.dumps(ROWS)}}}', [2, 2]),
        (f"\ufeff{LISTED}", [2, 11]),
        (LISTED.encode("utf-16"), [2, 11]),
        ("\n".join(PLAIN).encode("utf-16"), [1, 2]),
    ],
)
def test_rows_come_out_of_every_shape(text, lines):
    found = list(parse_rows("x.json", text if isinstance(text, bytes) else text.encode()))
    assert [item.values if isinstance(item, Row) else item for item in found] == ROWS
    assert [item.line for item in found] == lines


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [{"role": "user", "content": "a"}]},
        {"prompt": "a", "completions": [{"text": "b", "rank": 1}]},
        {"conversations": [{"from": "human", "value": "a"}]},
        {"something": [1, 2]},
        {"something": []},
    ],
)
def test_one_row_that_holds_a_list_is_a_row(row):
    (found,) = parse_rows("x.json", json.dumps(row, indent=1).encode())
    assert found.values == row


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"prompt": 1, "prompt": 2}', "the key 'prompt' is given twice; keep one, or rename one"),
        (b'{"a": [{"b": {"c": 1, "d": 2, "c": 1}}]}', "the key 'c' is given twice"),
        (b'{"\\u0061": 1, "a": 2}', "the key 'a' is given twice"),
        (b'{"\\u001b[31m": 1, "\\u001b[31m": 2}', "the key '\\x1b[31m' is given twice"),
        (b'{"a": ' + b"9" * 1001 + b"}", "a number of 1001 digits; write it as a text"),
        (b'{"a": 1e999}', "the number 1e999 is too large; write it as a text"),
        (b'{"a": [-Infinity]}', "-Infinity is not JSON; write null"),
        (b'{"a": ' + b"[" * 64 + b"]" * 64 + b"}", "nested too deeply, more than 64 levels"),
        (b'{"a": ' + b'{"b":' * 100_000 + b"1" + b"}" * 100_001, "nested too deeply, more than 64 levels"),
    ],
)
@pytest.mark.parametrize("listed", [False, True])
def test_one_row_is_refused_and_the_others_stay(line, reason, listed):
    rows = [b'{"prompt": 1}', line, b'{"prompt": 2, "a": [[], [], {}]}']
    content = b"[" + b",\n".join(rows) + b"]" if listed else b"\n".join(rows)
    if listed and len(line) > 100_000:
        with pytest.raises(UserError, match=r"x\.json:2: .*nested too deeply"):
            list(parse_rows("x.json", content))
        return
    first, bad, last = parse_rows("x.json", content)
    assert (first.values["prompt"], last.values["prompt"]) == (1, 2)
    assert isinstance(bad, Refusal) and (bad.line, bad.kind) == (2, "unreadable")
    assert reason in bad.reason and bad.reason.isprintable()


def test_depth_is_counted_by_levels_not_by_brackets():
    (row,) = parse_rows("x.jsonl", json.dumps({"prompt": "a", "wide": [[]] * 1000}).encode())
    assert len(row.values["wide"]) == 1000
    deep = b'{"a": ' + b"[" * 63 + b"]" * 63 + b"}"
    (row,) = parse_rows("x.jsonl", deep)
    assert isinstance(row, Row)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'[{"a": 1}]\n[{"a": 2}]', "x.json:2: text follows the end of the JSON list; write one list"),
        (b'[{"a": 1}] x', "x.json:1: text follows the end of the JSON list"),
        (
            b'{"train": [{"prompt": 1}], "test": [{"prompt": 2}]}',
            "x.json: is one object with the keys 'train', 'test'; write one of the lists 'train', 'test' alone",
        ),
    ],
)
def test_what_would_lose_rows_is_an_error(content, message):
    with pytest.raises(UserError) as error:
        list(parse_rows("x.json", content))
    assert str(error.value).startswith(message)


def test_a_broken_line_is_not_taken_for_the_start_of_a_longer_object():
    rows = list(parse_rows("x.jsonl", b'{"prompt": 1}\n{"prompt": \n{"prompt": 2}}\n{"prompt": 3'))
    assert [isinstance(row, Refusal) for row in rows] == [False, True, True, True]
