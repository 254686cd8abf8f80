"""Parquet and Arrow: what Python cannot hold becomes text or refuses its own row; a column given twice is refused."""

import datetime
import decimal
import io
import json

import pyarrow as pa
import pyarrow.parquet
import pytest

from podium.data import arrow_rows
from podium.data.fields import Refused
from podium.data.formats import read_preference
from podium.data.sources import Refusal, Row, parse_rows
from podium.errors import UserError

TEXTS = {"prompt": ["p", "q"], "chosen": ["a", "b"], "rejected": ["c", "d"]}


def parquet(table):
    stream = io.BytesIO()
    pa.parquet.write_table(table, stream, store_schema=True)
    return stream.getvalue()


def arrow_file(table, **options):
    stream = io.BytesIO()
    with pa.ipc.new_file(stream, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table)
    return stream.getvalue()


def arrow_stream(table):
    stream = io.BytesIO()
    with pa.ipc.new_stream(stream, table.schema) as writer:
        writer.write_table(table)
    return stream.getvalue()


def with_column(values):
    return pa.table(TEXTS | {"extra": values})


def as_int(values, type_):
    return pa.array(values, pa.int64()).cast(type_)


@pytest.mark.parametrize(
    ("values", "first"),
    [
        (as_int([1700000000123456789, None], pa.timestamp("ns")), "2023-11-14 22:13:20.123456789"),
        (as_int([1700000000123456000, 0], pa.timestamp("ns")), "2023-11-14 22:13:20.123456000"),
        (as_int([-1, 0], pa.timestamp("ns")), "1969-12-31 23:59:59.999999999"),
        (as_int([253402300800005, 0], pa.timestamp("ms")), "10000-01-01 00:00:00.005"),
        (as_int([1700000000_000, 0], pa.timestamp("ms", "Mars/Phobos")), "2023-11-14 22:13:20.000+00:00"),
        (as_int([1700000000123456789, 0], pa.timestamp("ns", "UTC")), "2023-11-14 22:13:20.123456789+00:00"),
        (as_int([1700000000, 0], pa.timestamp("s", "+01:00")), "2023-11-14 23:13:20+01:00"),
        (as_int([3_600_000_000_001, 0], pa.time64("ns")), "01:00:00.000000001"),
        (as_int([7, 0], pa.duration("ns")), "7 ns"),
        (pa.array([10**7, 0], pa.int32()).cast(pa.date32()), "29349-01-26"),
        (pa.array([[{"at": 1}], None]).cast(pa.list_(pa.struct([("at", pa.timestamp("ns"))]))), None),
        (pa.array([[("k", 1)], []], pa.map_(pa.string(), pa.timestamp("ns"))), None),
        (as_int([1, 2], pa.timestamp("ns")).dictionary_encode(), "1970-01-01 00:00:00.000000001"),
        (pa.array([datetime.date(2024, 5, 6), None]), "2024-05-06"),
        (pa.array([decimal.Decimal("1.50"), None]), "1.50"),
        (pa.array([float("nan"), 1.0]), "nan"),
        (pa.array([b"\xff", None]), "b'\\xff'"),
        (pa.array([b"\xff", b"x"]).cast(pa.string(), safe=False), None),
    ],
)
@pytest.mark.parametrize("write", [parquet, arrow_file, arrow_stream])
def test_a_column_that_no_format_reads_never_stops_the_reading(write, values, first):
    if pa.types.is_string(values.type):
        # Not an array that Arrow's own check lets pass.
        values = pa.Array.from_buffers(pa.string(), 2, pa.array([b"\xff", b"x"]).buffers())
        if write is not parquet:
            with pytest.raises(UserError, match=r"x: the Arrow file is damaged \(.*Invalid UTF8"):
                list(parse_rows("x", write(with_column(values))))
            return
        first = "b'\\xff'"
    rows = list(parse_rows("x", write(with_column(values))))
    records = [read_preference(row.values) for row in rows]
    assert [record.responses for record in records] == [["a", "c"], ["b", "d"]]
    assert [row.line for row in rows] == [1, 2]
    if first is not None:
        assert records[0].metadata["extra"] == first
    json.dumps([record.model_dump() for record in records], allow_nan=False)


def test_a_time_is_no_text_where_a_format_reads_one():
    table = pa.table(TEXTS).set_column(0, "prompt", as_int([1, 2], pa.timestamp("ns")))
    row, _ = parse_rows("x", parquet(table))
    with pytest.raises(Refused, match="prompt is Moment; write a text"):
        read_preference(row.values)


def test_what_cannot_be_converted_refuses_its_row_by_column(monkeypatch):
    def refuse(scalar):
        if scalar.as_py() == "q":
            raise ArithmeticError("no value")
        return scalar.as_py()

    monkeypatch.setattr(arrow_rows, "_has_nanoseconds", lambda _: True)
    monkeypatch.setattr(arrow_rows, "_value", refuse)
    good, bad = parse_rows("x", parquet(pa.table(TEXTS)))
    assert isinstance(good, Row) and isinstance(bad, Refusal)
    assert str(bad) == "x:2: column 'prompt' cannot be read (no value); drop or mend it"


def test_compressed_and_empty_ones():
    table = pa.table(TEXTS)
    for write in (lambda it: arrow_file(it, compression="zstd"), lambda it: arrow_file(it, compression="lz4")):
        assert [row.values["prompt"] for row in parse_rows("x.arrow", write(table))] == ["p", "q"]
    for write in (parquet, arrow_file, arrow_stream):
        assert list(parse_rows("x", write(table.slice(0, 0)))) == []


def twice(*names):
    return pa.Table.from_arrays([pa.array(["v"])] * len(names), names=list(names))


@pytest.mark.parametrize(
    ("table", "column"),
    [
        (twice("prompt", "chosen", "chosen"), "'chosen'"),
        (twice("prompt", "note", "rejected", "note"), "'note'"),
        (
            pa.table({"turn": pa.StructArray.from_arrays([pa.array(["v"])] * 2, names=["role", "role"])}),
            "'turn.role'",
        ),
        (
            pa.table({"m": [[None]]}, pa.schema([("m", pa.list_(pa.struct([("a", pa.int8()), ("a", pa.int8())])))])),
            "'m.a'",
        ),
    ],
)
def test_a_column_given_twice_is_refused_by_name(table, column):
    contents = [arrow_file(table), arrow_stream(table)]
    if column != "'turn.role'" and column != "'m.a'":
        contents.append(parquet(table))
    for content in contents:
        with pytest.raises(UserError) as error:
            list(parse_rows("x.parquet", content))
        assert str(error.value) == f"x.parquet: the column {column} is given twice; keep one, or rename one"


@pytest.mark.parametrize("write", [parquet, arrow_file, arrow_stream])
def test_equal_values_that_unfold_too_far_are_refused(monkeypatch, write):
    """A dictionary page says one long text a thousand times in a few bytes."""
    table = pa.table({"prompt": pa.array(["p" * 10_000] * 500).dictionary_encode()})
    if write is not parquet:
        table = pa.table({"prompt": ["p" * 10_000] * 500})
    content = write(table)
    monkeypatch.setattr(arrow_rows, "UNFOLD_ALWAYS", 100_000)
    monkeypatch.setattr(arrow_rows, "UNFOLD_AT_MOST", 1_000_000)
    with pytest.raises(UserError, match=rf"x: {len(content)} bytes unfold to more than"):
        list(parse_rows("x", content))


@pytest.mark.parametrize("write", [parquet, arrow_file, arrow_stream])
def test_a_file_cut_short_is_damaged(write):
    content = write(pa.table({"prompt": ["p" * 100] * 50}))
    for end in (12, len(content) // 2, len(content) - 9):
        with pytest.raises(UserError, match=r"^x: the (Parquet|Arrow) file is damaged \(|^x: cannot tell the type"):
            list(parse_rows("x", content[:end]))
