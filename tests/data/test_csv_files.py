"""CSV as spreadsheets and people write it gives the same rows; what cannot be told apart is refused with its line."""

import pytest

from podium.data.csv_rows import csv_rows
from podium.data.sources import Refusal, Row, parse_rows
from podium.errors import UserError

ROWS = [
    {"prompt": "Why, then?", "chosen": "So; thus", "rejected": "No"},
    {"prompt": "a", "chosen": "b", "rejected": "c"},
]
PLAIN = 'prompt,chosen,rejected\n"Why, then?",So; thus,No\na,b,c\n'


def found(content, name="x.csv"):
    rows = list(parse_rows(name, content.encode() if isinstance(content, str) else content))
    assert all(isinstance(row, Row) for row in rows), rows
    return [dict(row.values) for row in rows], [row.line for row in rows]


@pytest.mark.parametrize(
    ("content", "name", "lines"),
    [
        (PLAIN, "x.csv", [2, 3]),
        ('prompt;chosen;rejected\nWhy, then?;"So; thus";No\na;b;c\n', "x.csv", [2, 3]),
        ("prompt\tchosen\trejected\r\nWhy, then?\tSo; thus\tNo\r\na\tb\tc", "x.csv", [2, 3]),
        ("prompt|chosen|rejected\nWhy, then?|So; thus|No\na|b|c\n", "x.csv", [2, 3]),
        (PLAIN, "x.tsv", [2, 3]),
        (f"sep=,\r\n{PLAIN}", "x.csv", [3, 4]),
        ('"sep=;"\nprompt;chosen;rejected\nWhy, then?;"So; thus";No\na;b;c\n', "x.csv", [3, 4]),
        (f"\n \n,,,\n{PLAIN}", "x.csv", [5, 6]),
        (PLAIN.replace("\n", "\r"), "x.csv", [2, 3]),
        (f"{PLAIN},,\n\n \n , ,\n", "x.csv", [2, 3]),
        ('prompt, chosen, rejected\n"Why, then?", "So; thus", No\na, b, c\n', "x.csv", [2, 3]),
        (PLAIN.replace("chosen,", " chosen ,"), "x.csv", [2, 3]),
        ('prompt,chosen,rejected,,\n"Why, then?",So; thus,No,,\na,b,c\n', "x.csv", [2, 3]),
        (PLAIN.replace("No\n", "No,\n"), "x.csv", [2, 3]),
        (PLAIN.encode("utf-16"), "x.csv", [2, 3]),
        (b"\xfe\xff" + PLAIN.encode("utf-16-be"), "x.csv", [2, 3]),
        (PLAIN.encode("utf-16-le"), "x.csv", [2, 3]),
        (PLAIN.encode("utf-32"), "x.csv", [2, 3]),
        (f"\ufeffsep=,\n{PLAIN}".encode("utf-16-le"), "x.csv", [3, 4]),
    ],
)
def test_rows_come_out_of_what_spreadsheets_write(content, name, lines):
    assert found(content, name) == (ROWS, lines)


def test_a_column_without_a_name_in_front_is_an_index():
    rows, _ = found(",prompt,chosen\n7,a,b\n8,c,d\n")
    assert rows == [
        {"Unnamed: 0": "7", "prompt": "a", "chosen": "b"},
        {"Unnamed: 0": "8", "prompt": "c", "chosen": "d"},
    ]


def test_blanks_that_belong_to_values_stay():
    """Only where each name of the header has one before it does a blank belong to the delimiter."""
    rows, _ = found("prompt,chosen, rejected\na, b, c\n")
    assert rows == [{"prompt": "a", "chosen": " b", "rejected": " c"}]


def test_json_that_is_named_csv_is_read():
    assert found('{"prompt": "a"}\n{"prompt": "b"}\n')[0] == [{"prompt": "a"}, {"prompt": "b"}]
    assert found('[\n{"prompt": "a"}]')[0] == [{"prompt": "a"}]


@pytest.mark.parametrize(
    ("content", "reasons"),
    [
        ("a,b\n1,2,3\nx,y", {2: "3 columns where the header has 2; put text with commas between quotes"}),
        ("a;b\n1\nx;y", {2: "1 columns where the header has 2; put text with semicolons between quotes"}),
        ("a,b,\n1,2,3\nx,y,", {2: "column 3 holds '3' but has no name in the header"}),
        (
            'a,b\n1,"x"y\nx,y',
            {2: "not CSV: ',' expected after '\"'; write a quote within quotes twice"},
        ),
        # The quote that line 2 opens takes line 3 with it, and is closed within line 4.
        (
            'a,b\n1,"x\n2,y\n3,"z\nx,y',
            {2: "not CSV: ',' expected", 3: "a quote that line 2 opens runs", 4: "a quote that line 2 opens runs"},
        ),
    ],
)
def test_refused_lines(content, reasons):
    rows = list(parse_rows("x.csv", content.encode()))
    refused = {row.line: row.reason for row in rows if isinstance(row, Refusal)}
    assert refused.keys() == reasons.keys()
    for line, reason in reasons.items():
        assert reason in refused[line]
    assert [list(row.values.values())[:2] for row in rows if isinstance(row, Row)] == [["x", "y"]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'a,b\n1,2\n3,"x\n4,y\n', "x.csv:3: a quote that is opened in this record is never closed"),
        (b"a,b,a\n1,2,3\n", "x.csv:1: the header needs one name for each column, each once; 'a' is given twice"),
        (b"a,b, a\n1,2,3\n", "x.csv:1: the header needs one name for each column, each once; 'a' is given twice"),
        (b"a;b;a\n1;2;3\n", "x.csv:1: the header needs one name for each column, each once; 'a' is given twice"),
        (b"a,\xff\n1,2\n", "x.csv:1: the header is not UTF-8; save the file as UTF-8"),
        (b"a,\x1b[31m\n1,2\n", "x.csv:1: the header has the column '\\x1b[31m'; write names without control"),
        (b",,\n;;\n", "x.csv: the file is empty; write a header"),
        (b"\xff\xfea", "x.csv: is UTF-16, but damaged"),
        (b'"a\n', "x.csv:1: the header is not CSV: unexpected end of data"),
    ],
)
def test_refused_files(content, message):
    with pytest.raises(UserError) as error:
        list(parse_rows("x.csv", content))
    assert str(error.value).startswith(message)
    assert str(error.value).isprintable()


def test_many_blank_lines_take_no_time():
    """A list that loses its first line again and again takes minutes for these."""
    assert len(list(csv_rows("x.csv", b"\n" * 400_000 + b"a,b\n1,2\n", delimiter=","))) == 1
