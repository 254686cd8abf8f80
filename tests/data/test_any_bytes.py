"""Whatever bytes a data file holds, it gives records, refusals, or one error for the user; never another exception."""

import bz2
import gzip
import io
import json
import lzma

import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from podium.data.demonstrations import read_demonstration
from podium.data.fields import Refused
from podium.data.formats import read_preference
from podium.data.json_rows import _COLUMNS
from podium.data.prompts import read_prompt
from podium.data.sources import Refusal, Row, parse_rows
from podium.errors import UserError

NAMES = ("x.jsonl", "x.json", "x.csv", "x.tsv", "x.parquet", "x.arrow", "x.jsonl.gz", "artifact")
ROWS = [
    {"prompt": "Why?", "chosen": [{"role": "assistant", "content": "a"}], "rejected": "b", "at": 1.5},
    {"prompt": [{"from": "human", "value": "Hm"}], "completions": [{"text": "x", "rank": 1}, {"text": "y", "rank": 2}]},
    {"messages": [{"author": "user", "content": "a"}, {"author": "bot", "content": "b"}], "n": {"m": [None, True]}},
]
TABLE = pa.table(
    {
        "prompt": ["p", "q"],
        "chosen": [[{"role": "assistant", "content": "a"}]] * 2,
        "rejected": [[{"role": "assistant", "content": "b"}], None],
        "at": pa.array([1, None], pa.timestamp("ns", "Europe/Berlin")),
        "many": pa.array([{"k": [1.5]}, None], pa.struct([("k", pa.list_(pa.float64()))])),
    }
)


def written(write):
    stream = io.BytesIO()
    write(stream)
    return stream.getvalue()


def ipc(new):
    def write(stream):
        with new(stream, TABLE.schema) as writer:
            writer.write_table(TABLE)

    return written(write)


JSONL = "\n".join(map(json.dumps, ROWS)).encode()
CSV = 'prompt;response_a;response_b;choice\n"a\nb";c;d;0.0\ne;f;"g""h";b\n'
WHOLE = [
    JSONL,
    json.dumps(ROWS, indent=1).encode(),
    json.dumps({"data": ROWS}, indent=1).encode(),
    CSV.encode(),
    CSV.encode("utf-16"),
    written(lambda stream: pa.parquet.write_table(TABLE, stream)),
    ipc(pa.ipc.new_file),
    ipc(pa.ipc.new_stream),
    gzip.compress(JSONL, mtime=0),
    bz2.compress(JSONL),
    lzma.compress(JSONL),
    pa.compress(JSONL, "zstd", asbytes=True),
]


@st.composite
def damaged(draw):
    """Draw a file that was whole, with some bytes replaced, and perhaps cut or lengthened."""
    content = bytearray(draw(st.sampled_from(WHOLE)))
    for place in draw(st.lists(st.integers(0, len(content) - 1), max_size=4)):
        content[place] = draw(st.integers(0, 255))
    end = draw(st.none() | st.integers(0, len(content)))
    return bytes(content[:end]) + draw(st.sampled_from([b"", b"\n", b"\0", b'{"a": 1}']))


def check(name, content):
    try:
        rows = list(parse_rows(name, content))
    except UserError as error:
        assert str(error).startswith(name) and "\n" not in str(error)
        return
    for row in rows:
        assert isinstance(row, Row | Refusal)
        if isinstance(row, Row):
            read(row.values)


def read(values):
    for reader in (read_preference, read_prompt, read_demonstration):
        try:
            record = reader(values)
        except Refused as reason:
            assert str(reason) and reason.kind
        else:
            json.dumps(record.model_dump(), ensure_ascii=False, allow_nan=False).encode()


@given(content=st.binary(min_size=1, max_size=200), name=st.sampled_from(NAMES))
@example(content=b"\xff\n1", name="x.csv")
@example(content=b"PAR1", name="x.parquet")
@example(content=b"ARROW1\0\0", name="x.arrow")
@example(content=b"\xff\xff\xff\xff\x01\0\0\0\0\0\0\0", name="x.arrow")
def test_any_bytes(content, name):
    check(name, content)


@given(content=damaged(), name=st.sampled_from(NAMES))
def test_any_damage_of_a_whole_file(content, name):
    check(name, content)


@pytest.mark.parametrize("content", WHOLE)
def test_the_whole_files_are_whole(content):
    assert all(isinstance(row, Row) for row in parse_rows("x.csv", content))


# Messages that stand in a text, as JSON and as Python prints them.
MESSAGES = [
    "[1, 2]",
    r'["\ud83d", "b"]',
    r'[{"role": "user", "content": "\ud83d"}]',
    r"[{'role': 'user', 'content': '\ud83d', 7: b'x'}]",
    '[{"role": "user", "content": "a", "tool_calls": ' + "[" * 400 + "]" * 400 + "}]",
    '[{"role": "user", "content": NaN}, {"role": "assistant", "content": "a"}]',
    "[{'role': 'user', 'content': {1, 2}}, {'from': 'gpt', 'value': 1j}]",
]
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=6)
    | st.sampled_from(["1.0", "a", *MESSAGES])
)
names = st.sampled_from(
    [*sorted(_COLUMNS), "role", "content", "from", "value", "rank", "text", "type", "metadata", "id"]
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=4), max_leaves=12
)


@given(row=st.dictionaries(names, values, min_size=1, max_size=6))
@example(row={"prompt": "a", "completions": [{"text": "b", "rank": 1e999}, {"text": "c", "rank": 10**400}]})
@example(row={"prompt": MESSAGES[2], "chosen": "a", "rejected": "b"})
@example(row={"prompt": MESSAGES[3], "chosen": "a", "rejected": "b"})
@example(row={"prompt": MESSAGES[4], "chosen": "a", "rejected": "b"})
@example(row={"prompt": "p", "responses": MESSAGES[1], "ranks": MESSAGES[0]})
def test_any_values_in_any_columns(row):
    read(row)
