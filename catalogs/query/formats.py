"""Rows of a query as CSV, TSV, JSON, JSON lines or Arrow, written batch by batch.

What a format has no type for is text: times in ISO 8601 (UTC), bytes in base64, intervals as DuckDB prints them, and in CSV lists,
structs and maps as JSON. In CSV, null is nothing and an empty text is `""`. In JSON, numbers that JSON does not have are the texts
`NaN`, `Infinity` and `-Infinity`, and decimals that no double holds exactly are texts.
"""

from __future__ import annotations

import base64
import datetime
import decimal
import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import IO, Any, Literal

import pyarrow as pa

Format = Literal["csv", "tsv", "nl", "json", "arrow"]
FORMATS: tuple[Format, ...] = ("csv", "tsv", "nl", "json", "arrow")


def write_rows(schema: pa.Schema, batches: Iterable[pa.RecordBatch], form: Format, out: IO[bytes]) -> int:
    """Write rows to a binary stream; return their number. `nl` is one JSON object a line, `arrow` an IPC stream."""
    writers: dict[str, Callable[[pa.Schema, Iterable[pa.RecordBatch], IO[bytes]], int]] = {
        "csv": _write_csv,
        "tsv": partial(_write_csv, delimiter="\t"),
        "nl": _write_lines,
        "json": _write_array,
        "arrow": _write_arrow,
    }
    return writers[form](schema, batches, out)


def unique(columns: Sequence[str]) -> list[str]:
    """Return column names of which each stands once: a repeated one gets a number, because a JSON object holds each name once."""
    names: list[str] = []
    for column in columns:
        name, number = column, 1
        while name in names:
            number += 1
            name = f"{column}_{number}"
        names.append(name)
    return names


def _write_arrow(schema: pa.Schema, batches: Iterable[pa.RecordBatch], out: IO[bytes]) -> int:
    rows = 0
    with pa.ipc.new_stream(out, schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
            rows += batch.num_rows
    return rows


def _write_csv(schema: pa.Schema, batches: Iterable[pa.RecordBatch], out: IO[bytes], delimiter: str = ",") -> int:
    from pyarrow import csv

    flat = pa.schema([pa.field(field.name, field.type if _is_plain(field.type) else pa.string()) for field in schema])
    rows = 0
    options = csv.WriteOptions(delimiter=delimiter)
    with csv.CSVWriter(out, flat, write_options=options) as writer:
        for batch in batches:
            columns = [_as_text(column) for column in batch.columns]
            writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=flat))
            rows += batch.num_rows
    return rows


def _is_plain(kind: pa.DataType) -> bool:
    """Whether the CSV of pyarrow is what DuckDB and others read back: numbers, booleans, texts and dates."""
    types = pa.types
    return bool(
        types.is_integer(kind)
        or types.is_float32(kind)
        or types.is_float64(kind)
        or types.is_decimal(kind)
        or types.is_boolean(kind)
        or types.is_string(kind)
        or types.is_date32(kind)
    )


def _as_text(column: pa.Array) -> pa.Array:
    if _is_plain(column.type):
        return column
    texts = [value if value is None or isinstance(value, str) else _json_text(value) for value in _values(column)]
    return pa.array(texts, pa.string())


_json_text = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode


def _write_lines(schema: pa.Schema, batches: Iterable[pa.RecordBatch], out: IO[bytes]) -> int:
    rows = 0
    for texts in _objects(schema, batches):
        out.write("".join(f"{text}\n" for text in texts).encode())
        rows += len(texts)
    return rows


def _write_array(schema: pa.Schema, batches: Iterable[pa.RecordBatch], out: IO[bytes]) -> int:
    rows = 0
    for texts in _objects(schema, batches):
        out.write((("[\n " if not rows else ",\n ") + ",\n ".join(texts)).encode())
        rows += len(texts)
    out.write(b"\n]\n" if rows else b"[]\n")
    return rows


def _objects(schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> Iterator[list[str]]:
    """Yield the rows of each batch that has any, as JSON objects."""
    names = unique(schema.names)
    for batch in batches:
        columns = [_values(column) for column in batch.columns]
        if batch.num_rows:
            yield [_json_text(dict(zip(names, row, strict=True))) for row in zip(*columns, strict=True)]


def _values(column: pa.Array) -> list[Any]:
    """Return the values of a column as JSON has them."""
    import pyarrow.compute as pc

    kind = column.type
    if pa.types.is_dictionary(kind):
        column = column.dictionary_decode()
        kind = column.type
    if pa.types.is_timestamp(kind) or pa.types.is_interval(kind) or pa.types.is_duration(kind):
        return [None if text is None else _time_text(text, kind) for text in _texts(column)]
    if pa.types.is_string(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        return list(column.to_pylist())
    if pa.types.is_float32(kind):
        # 3.1 rather than 3.0999999046325684, which is the same number in 32 bits.
        column = pc.cast(pc.cast(column, pa.string()), pa.float64())
    if pa.types.is_floating(kind) and pc.all(pc.is_finite(column)).as_py() is not False:
        return list(column.to_pylist())
    return [_value(value, kind) for value in column.to_pylist()]


def _texts(column: pa.Array) -> list[Any]:
    if pa.types.is_timestamp(column.type):
        import pyarrow.compute as pc

        bare = column.cast(pa.timestamp(column.type.unit)) if column.type.tz else column
        return list(pc.strftime(bare, format="%Y-%m-%dT%H:%M:%S").to_pylist())
    return list(column.to_pylist())


def _time_text(value: Any, kind: pa.DataType) -> str:
    if pa.types.is_timestamp(kind):
        return f"{value}+00:00" if kind.tz else str(value)
    if isinstance(value, pa.MonthDayNano):
        return f"{value.months} months {value.days} days {value.nanoseconds / 1e9:.9f} seconds"
    return f"{value.total_seconds()!r} seconds"


def _value(value: Any, kind: pa.DataType) -> Any:
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return (
                value
                if math.isfinite(value)
                else "NaN"
                if math.isnan(value)
                else "Infinity"
                if value > 0
                else "-Infinity"
            )
        case decimal.Decimal():
            return _number(value)
        case bytes():
            return base64.b64encode(value).decode()
        case datetime.datetime() | datetime.date() | datetime.time():
            return value.isoformat()
        case dict():
            return {name: _value(part, kind.field(name).type) for name, part in value.items()}
        case list() if pa.types.is_map(kind):
            return {_key(key, kind): _value(part, kind.item_type) for key, part in value}
        case list():
            return [_value(part, kind.value_type) for part in value]
        case _:
            return str(value)


def _key(key: Any, kind: pa.MapType) -> str:
    found = _value(key, kind.key_type)
    return found if isinstance(found, str) else _json_text(found)


def _number(value: decimal.Decimal) -> int | float | str:
    if value == value.to_integral_value():
        return int(value)
    return float(value) if decimal.Decimal(repr(float(value))) == value else str(value)
