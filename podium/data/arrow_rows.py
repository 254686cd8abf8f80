"""Read the rows of Parquet and Arrow files; what Python cannot hold becomes text or refuses its own row."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from podium.data.packed import UNFOLD_ALWAYS, UNFOLD_AT_MOST, UNFOLD_TIMES
from podium.data.rows import Refusal, Row, shown, unreadable
from podium.errors import UserError

# Deeper than any format of rows; Python's own converters give up at about a thousand.
MAX_DEPTH = 64
# Rows that are converted at once: few, because equal values take no place in the file and all of it here.
_BATCH = 128


@dataclass(frozen=True)
class Moment:
    """A time that Python's datetime cannot hold, as text: no format reads it, so it goes to a row's metadata."""

    text: str

    def __str__(self) -> str:
        """Return the text."""
        return self.text


@dataclass(frozen=True)
class _Fault:
    """Why a value cannot be read."""

    reason: str


def parquet_rows(path: str, content: bytes) -> Iterator[Row | Refusal]:
    """Read a Parquet file. Raises UserError where it is damaged, names a column twice, or unfolds too far."""
    import pyarrow
    import pyarrow.parquet

    limit = _limit(content)
    try:
        file = pyarrow.parquet.ParquetFile(pyarrow.BufferReader(content))
        _check_columns(path, file.schema_arrow)
        groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
        if sum(group.total_byte_size for group in groups) > limit:
            _raise_unfolds(path, content, limit)
        batches = file.iter_batches(batch_size=_BATCH)
    except Exception as error:
        raise _damaged(path, "Parquet", error) from None
    return _rows(path, "Parquet", batches, limit, content)


def arrow_rows(path: str, content: bytes) -> Iterator[Row | Refusal]:
    """Read an Arrow file or stream, as save_to_disk and Feather write it. Raises UserError as parquet_rows does."""
    import pyarrow

    try:
        buffer = pyarrow.BufferReader(content)
        if content.startswith(b"ARROW1"):
            file = pyarrow.ipc.open_file(buffer)
            batches = (file.get_batch(number) for number in range(file.num_record_batches))
        else:
            file = pyarrow.ipc.open_stream(buffer)
            batches = iter(file)
        _check_columns(path, file.schema)
    except Exception as error:
        raise _damaged(path, "Arrow", error) from None
    return _rows(path, "Arrow", batches, _limit(content), content)


def is_arrow(content: bytes) -> bool:
    """Tell whether a content begins as an Arrow file, or as an Arrow stream: a mark and the length of the schema."""
    if content.startswith(b"ARROW1"):
        return True
    return content.startswith(b"\xff\xff\xff\xff") and 0 < int.from_bytes(content[4:8], "little") < len(content)


def _limit(content: bytes) -> int:
    return min(max(UNFOLD_TIMES * len(content), UNFOLD_ALWAYS), UNFOLD_AT_MOST)


def _damaged(path: str, kind: str, error: Exception) -> UserError:
    """Return the user's error for what Arrow raised: each of its parts has errors of its own."""
    if isinstance(error, UserError):
        return error
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
    return UserError(f"{path}: the {kind} file is damaged ({reason}); fetch or write it again")


def _raise_unfolds(path: str, content: bytes, limit: int) -> None:
    raise UserError(
        f"{path}: {len(content)} bytes unfold to more than {limit}, which a few bytes may do to fill this machine's "
        "memory; write fewer rows, or fewer equal ones, into one file"
    )


def _check_columns(path: str, schema: Any) -> None:
    """Refuse two columns, or two fields of one column, of the same name: one of both would be lost."""
    levels = [("", [(field.name, field.type) for field in schema], 1)]
    while levels:
        where, fields, depth = levels.pop()
        names = [name for name, _ in fields]
        twice = next((name for number, name in enumerate(names) if name in names[:number]), None)
        if twice is not None:
            raise UserError(f"{path}: the column {shown(where + twice)} is given twice; keep one, or rename one")
        if depth > MAX_DEPTH:
            raise UserError(f"{path}: the column {shown(where)} is nested more than {MAX_DEPTH} deep; flatten it")
        for name, type_ in fields:
            inner = _inner(type_)
            if inner:
                levels.append((f"{where}{name}." if name else where, inner, depth + 1))


def _inner(type_: Any) -> list[tuple[str, Any]]:
    """Return the fields of a struct, at whatever depth of lists it stands; lists count as fields of no name."""
    import pyarrow.types as types

    if isinstance(type_, _extension()):
        return _inner(type_.storage_type)
    if types.is_dictionary(type_):
        return _inner(type_.value_type)
    if types.is_map(type_):
        return [("key", type_.key_type), ("value", type_.item_type)]
    if types.is_struct(type_) or types.is_union(type_):
        return [(type_.field(number).name, type_.field(number).type) for number in range(type_.num_fields)]
    if types.is_nested(type_):
        return [("", type_.value_type)]
    return []


def _extension() -> Any:
    import pyarrow

    return pyarrow.BaseExtensionType


def _rows(path: str, kind: str, batches: Any, limit: int, content: bytes) -> Iterator[Row | Refusal]:
    number, size = 0, 0
    for piece in _pieces(path, kind, batches):
        try:
            columns = {name: _plain(piece.column(place)) for place, name in enumerate(piece.schema.names)}
            size += sum(column.nbytes for column in columns.values())
            if size > limit:
                _raise_unfolds(path, content, limit)
            values = {name: _values(column) for name, column in columns.items()}
        except Exception as error:
            raise _damaged(path, kind, error) from None
        for place in range(piece.num_rows):
            number += 1
            yield _row(path, number, {name: column[place] for name, column in values.items()})


def _pieces(path: str, kind: str, batches: Any) -> Iterator[Any]:
    """Yield the batches of a file in pieces of a few rows."""
    while True:
        try:
            batch = next(batches, None)
            if batch is None:
                return
            if kind == "Arrow":
                # Of an Arrow file nothing has been checked yet: offsets may lead anywhere.
                batch.validate(full=True)
        except Exception as error:
            raise _damaged(path, kind, error) from None
        for start in range(0, batch.num_rows, _BATCH):
            yield batch.slice(start, _BATCH)


def _plain(column: Any) -> Any:
    """Return a column with its values in full, where the file holds the different ones once."""
    import pyarrow.types as types

    return column.dictionary_decode() if types.is_dictionary(column.type) else column


def _row(path: str, number: int, values: dict[str, Any]) -> Row | Refusal:
    for name, value in values.items():
        if isinstance(value, _Fault):
            return unreadable(path, number, f"column {shown(name)} cannot be read ({value.reason}); drop or mend it")
    return Row(path, number, values)


def _values(column: Any) -> list[Any]:
    """Return a column as Python values: all at once where that goes, else one by one."""
    if not _has_nanoseconds(column.type):
        try:
            return list(column.to_pylist())
        # Dates out of Python's range, unknown time zones, text that is not UTF-8: errors of many kinds.
        except Exception:
            pass
    return [_guarded(scalar) for scalar in column]


def _has_nanoseconds(type_: Any) -> bool:
    """Tell whether a type holds times that Python rounds, or hands to pandas where that is installed."""
    if getattr(type_, "unit", None) == "ns":
        return True
    return any(_has_nanoseconds(inner) for _, inner in _inner(type_))


def _guarded(scalar: Any) -> Any:
    try:
        return _value(scalar)
    except Exception as error:
        return _Fault((str(error).strip().splitlines() or [type(error).__name__])[0][:200])


def _value(scalar: Any) -> Any:
    """Return one value; times become text as they stand, text that is not UTF-8 stays bytes."""
    import pyarrow
    import pyarrow.types as types

    kind = scalar.type
    if not scalar.is_valid:
        return None
    if types.is_dictionary(kind) or isinstance(kind, _extension()) or types.is_union(kind):
        return _value(scalar.value)
    if types.is_struct(kind):
        return {kind.field(place).name: _value(scalar[place]) for place in range(kind.num_fields)}
    if types.is_map(kind):
        return [(_value(entry["key"]), _value(entry["value"])) for entry in scalar.values]
    if types.is_nested(kind) and not types.is_run_end_encoded(kind):
        return [_value(item) for item in scalar.values]
    if types.is_timestamp(kind) and kind.tz is not None:
        # Shown in UTC: the zone's name may be one that this machine does not know.
        return Moment(f"{scalar.cast(pyarrow.timestamp(kind.unit)).cast(pyarrow.string()).as_py()}+00:00")
    if types.is_duration(kind):
        return Moment(f"{scalar.cast(pyarrow.int64()).as_py()} {kind.unit}")
    if types.is_temporal(kind) and not types.is_interval(kind):
        return Moment(scalar.cast(pyarrow.string()).as_py())
    if types.is_string(kind) or types.is_large_string(kind):
        return _text(scalar)
    return scalar.as_py()


def _text(scalar: Any) -> str | bytes:
    try:
        return str(scalar.as_py())
    except UnicodeDecodeError:
        return bytes(scalar.as_buffer().to_pybytes())
