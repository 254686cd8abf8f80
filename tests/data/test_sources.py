"""Every file type gives the same rows, each with its line; unreadable rows are refused, unreadable files are errors."""

import csv
import gzip
import io
import json

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from podium.data.sources import Row, parse_rows, read_rows
from podium.errors import UserError

ROWS = [{"prompt": "a, \u2028 b", "answer": 'say "x"\nor y'}, {"prompt": "Grüße", "answer": "🙂"}]
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
objects = st.dictionaries(st.text(max_size=6), json_values, max_size=4).map(lambda row: row | {"prompt": "p"})


def values(found):
    found = list(found)
    assert all(isinstance(item, Row) for item in found), found
    return [dict(item.values) for item in found]


def lines(found):
    return [item.line for item in found]


def jsonl(rows, end="\n"):
    return end.join(json.dumps(row, ensure_ascii=False) for row in rows).encode()


def csv_bytes(rows, **options):
    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, rows[0], **options)
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue().encode()


def gzipped(content):
    """Return the same bytes at any time: gzip.compress puts the second of the call into its header."""
    return gzip.compress(content, mtime=0)


def parquet_bytes(rows):
    stream = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), stream)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "places"),
    [
        ("a.jsonl", jsonl(ROWS), [1, 2]),
        ("a.jsonl", jsonl(ROWS, "\r\n"), [1, 2]),
        ("a.jsonl", b"\xef\xbb\xbf\n" + jsonl(ROWS, "\n\n \n"), [2, 5]),
        ("a.jsonl.gz", gzipped(jsonl(ROWS)), [1, 2]),
        ("artifact", gzipped(jsonl(ROWS)), [1, 2]),
        ("a.json", json.dumps(ROWS).encode(), [1, 1]),
        ("a.json", json.dumps(ROWS, indent=1, ensure_ascii=False).encode(), [2, 6]),
        ("a.csv", csv_bytes(ROWS), [2, 4]),
        ("a.csv", b"\xef\xbb\xbf" + csv_bytes(ROWS), [2, 4]),
        ("a.tsv", csv_bytes(ROWS, delimiter="\t"), [2, 4]),
        ("a.csv.gz", gzipped(csv_bytes(ROWS)), [2, 4]),
        ("a.parquet", parquet_bytes(ROWS), [1, 2]),
        ("artifact", parquet_bytes(ROWS), [1, 2]),
    ],
)
def test_every_type_gives_the_rows_and_their_lines(tmp_path, name, content, places):
    path = tmp_path / name
    path.write_bytes(content)
    found = list(read_rows(str(path)))
    assert values(found) == ROWS
    assert lines(found) == places
    assert found[0].file == str(path)


@given(rows=st.lists(objects, min_size=1, max_size=4))
def test_json_lines_and_lists_come_back(rows):
    for content in (jsonl(rows), json.dumps(rows, indent=2).encode()):
        assert values(parse_rows("x.json", content)) == rows


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"a": ', "not JSON: Expecting value"),
        (b'{"a": "\xff"}', "not UTF-8: byte 0xff at 7; save the file as UTF-8"),
        (b'["a"]', "a row is an object with named fields, not list"),
        (b'{"a": NaN}', "NaN is not JSON; write null"),
        (b'{"a": "\\ud83d"}', "half of a surrogate pair"),
        (b'{"a": ' + b"[" * 100_000, "nested too deeply"),
        (b'{"a": ' + b"9" * 5000 + b"}", "a number of 5000 digits; write it as a text"),
    ],
)
def test_one_bad_line_is_refused_and_the_others_stay(line, reason):
    good, bad, after = parse_rows("x.jsonl", b'{"a": 1}\n' + line + b'\n{"a": "\\ud83d\\ude42"}')
    assert (good.values, after.values) == ({"a": 1}, {"a": "🙂"})
    assert (bad.line, bad.kind) == (2, "unreadable")
    assert reason in bad.reason
    assert str(bad).startswith("x.jsonl:2: ")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"1", "1 columns where the header has 2; put text with commas between quotes"),
        (b"1,2,3", "3 columns where the header has 2"),
        (b"1,\xff", "not UTF-8"),
        (b'1,"a"b', "not CSV"),
    ],
)
def test_one_bad_line_of_csv_is_refused(line, reason):
    bad, good = parse_rows("x.csv", b"a,b\n" + line + b"\nx,y\n")
    assert good.values == {"a": "x", "b": "y"}
    assert bad.line == 2
    assert reason in bad.reason


def test_a_long_field_of_csv_is_read():
    (row,) = parse_rows("x.csv", b'a\n"' + b"long " * 60_000 + b'"\n')
    assert len(row.values["a"]) == 300_000


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.jsonl", b"", "x.jsonl: the file is empty; write one JSON object a line"),
        ("x.csv", b" \n", "x.csv: the file is empty"),
        ("x.jsonl.gz", gzipped(b""), "x.jsonl.gz: the file is empty"),
        ("x.jsonl.gz", gzipped(b'{"a": 1}\n')[:-6], "x.jsonl.gz: is compressed with gzip and cannot be unpacked"),
        ("x.parquet", b"PAR1 and no more", "x.parquet: the Parquet file is damaged"),
        ("x.csv", b"a,a\n1,2\n", "x.csv:1: the header needs one name for each column"),
        ("x.json", b'[{"a": 1},\n {"a": }]', "x.json:2: this element of the JSON list is not JSON"),
        ("x.json", b'[{"a": 1}\n {"a": 2}]', "x.json:1: the JSON list does not go on after this element"),
        ("x.json", b'[{"a": 1}', "x.json:1: the JSON list does not go on after this element"),
        ("x.json", b'[\n"\xff"]', "x.json:2: not UTF-8"),
        ("x.txt", b"hello", "x.txt: cannot tell the type of this file; name it .jsonl"),
    ],
)
def test_a_file_without_rows_is_an_error_that_names_it(name, content, message):
    with pytest.raises(UserError) as error:
        list(parse_rows(name, content))
    assert str(error.value).startswith(message)
