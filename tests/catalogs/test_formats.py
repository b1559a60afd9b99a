"""Rows as CSV, TSV, JSON, JSON lines and Arrow: what is written comes back with the same values, whatever they are."""

from __future__ import annotations

import base64
import datetime
import io
import json
import math
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from corpus_builders import make_unit
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import csv

from catalogs.corpus.commit import commit_unit, create_corpus
from catalogs.query.formats import FORMATS, write_rows
from catalogs.query.streaming import streamed
from catalogs.query.views import QueryError, query

UTC = datetime.UTC
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00\r"), max_size=8)
FLOAT32 = st.floats(width=32, allow_nan=False)
TIMES = st.datetimes(datetime.datetime(1900, 1, 1), datetime.datetime(2100, 1, 1))
TYPES: dict[str, tuple[pa.DataType, str, st.SearchStrategy[Any]]] = {
    "text": (pa.string(), "VARCHAR", TEXT),
    "small": (pa.float32(), "FLOAT", FLOAT32),
    "large": (pa.float64(), "DOUBLE", st.floats(allow_nan=False)),
    "number": (pa.int64(), "BIGINT", st.integers(-(2**63), 2**63 - 1)),
    "flag": (pa.bool_(), "BOOLEAN", st.booleans()),
    "bytes": (pa.binary(), "VARCHAR", st.binary(max_size=8)),
    "at": (pa.timestamp("us", tz="UTC"), "TIMESTAMPTZ", TIMES.map(lambda at: at.replace(tzinfo=UTC))),
    "local": (pa.timestamp("us"), "TIMESTAMP", TIMES),
    "day": (pa.date32(), "DATE", st.dates(datetime.date(1900, 1, 1), datetime.date(2100, 1, 1))),
    "texts": (pa.list_(pa.string()), "VARCHAR[]", st.lists(st.none() | TEXT, max_size=3)),
    "word": (
        pa.struct([("word", pa.string()), ("end", pa.float64())]),
        "STRUCT(word VARCHAR, \"end\" DOUBLE)",
        st.fixed_dictionaries({"word": TEXT, "end": st.floats(allow_nan=False, allow_infinity=False)}),
    ),
    "extra": (
        pa.map_(pa.string(), pa.int64()),
        "MAP(VARCHAR, BIGINT)",
        st.dictionaries(TEXT, st.integers(-(2**40), 2**40), max_size=3).map(lambda found: sorted(found.items())),
    ),
}  # fmt: skip
SCHEMA = pa.schema([(name, kind) for name, (kind, _, _) in TYPES.items()])
ROWS = st.lists(
    st.fixed_dictionaries({name: st.none() | values for name, (_, _, values) in TYPES.items()}), min_size=1, max_size=5
)
COLUMNS = "{" + ", ".join(f"'{name}': '{sql}'" for name, (_, sql, _) in TYPES.items()) + "}"

NESTED = {"texts": '["VARCHAR"]', "word": '{"word": "VARCHAR", "end": "DOUBLE"}', "extra": '"MAP(VARCHAR, BIGINT)"'}
FLAT = (
    "{" + ", ".join(f"'{name}': '{'VARCHAR' if name in NESTED else sql}'" for name, (_, sql, _) in TYPES.items()) + "}"
)


def written(table: pa.Table, form: Any) -> bytes:
    out = io.BytesIO()
    assert write_rows(table.schema, table.to_batches(max_chunksize=2), form, out) == table.num_rows
    return out.getvalue()


def without_base64(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row | {"bytes": None if row["bytes"] is None else base64.b64decode(row["bytes"])} for row in rows]


@settings(max_examples=15, deadline=None)
@given(rows=ROWS)
def test_csv_and_json_lines_come_back_as_they_were(rows: list[dict[str, Any]], tmp_path_factory: Any) -> None:
    table = pa.Table.from_pylist(rows, SCHEMA)
    folder: Path = tmp_path_factory.mktemp("formats", numbered=True)
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    for form in ("csv", "tsv", "nl", "json"):
        path = folder / form
        path.write_bytes(written(table, form))
        if form in ("nl", "json"):
            kind = {"nl": "newline_delimited", "json": "array"}[form]
            sql = f"SELECT * FROM read_json('{path}', columns = {COLUMNS}, format = '{kind}')"
        else:
            parts = ", ".join(f"json_transform({name}, '{shape}') AS {name}" for name, shape in NESTED.items())
            delimiter = "," if form == "csv" else "\t"
            sql = (
                f"SELECT * REPLACE ({parts}) FROM read_csv('{path}', columns = {FLAT}, delim = '{delimiter}', header = true, "
                "allow_quoted_nulls = false, quote = '\"', escape = '\"', auto_detect = false)"
            )
        found = connection.sql(sql).to_arrow_table().to_pylist()
        assert without_base64(found) == table.to_pylist(), form
    assert pa.ipc.open_stream(written(table, "arrow")).read_all().equals(table)


@settings(max_examples=10, deadline=None)
@given(rows=ROWS)
def test_pyarrow_reads_the_csv(rows: list[dict[str, Any]]) -> None:
    names = ["text", "small", "large", "number", "flag", "day"]
    table = pa.Table.from_pylist(rows, SCHEMA).select(names)
    options = csv.ConvertOptions(column_types=table.schema, strings_can_be_null=True, quoted_strings_can_be_null=False)
    parsing = csv.ParseOptions(newlines_in_values=True)
    assert csv.read_csv(io.BytesIO(written(table, "csv")), convert_options=options, parse_options=parsing).equals(table)


def test_what_formats_have_no_type_for_is_text() -> None:
    sql = """SELECT 0.1 AS tenth, 12345678901234567890.5 AS exact, 'NaN'::FLOAT AS nan, '-inf'::DOUBLE AS low,
        INTERVAL '1 month 2 days 3.5 seconds' AS span, TIME '12:30:00' AS clock, 'b'::BLOB AS raw, MAP {1: 'x'} AS by_number,
        ['NaN'::DOUBLE] AS scores, sum(range) AS total, 'a'::ENUM('a', 'b') AS kind FROM range(3)"""
    table = duckdb.connect().sql(sql).to_arrow_table()
    [row] = json.loads(written(table, "json"))
    assert json.loads(written(table, "nl")) == row
    assert row == {
        "tenth": 0.1, "exact": "12345678901234567890.5", "nan": "NaN", "low": "-Infinity",
        "span": "1 months 2 days 3.500000000 seconds", "clock": "12:30:00", "raw": "Yg==", "by_number": {"1": "x"},
        "scores": ["NaN"], "total": 3, "kind": "a",
    }  # fmt: skip
    header, line = written(table, "csv").decode().splitlines()
    assert header.startswith('"tenth","exact","nan"') and line.startswith(
        '0.1,12345678901234567890.5,nan,-inf,"1 months'
    )
    [[span]] = (
        duckdb.connect().execute(f"SELECT INTERVAL '{row['span']}' = INTERVAL '1 month 2 days 3.5 seconds'").fetchall()
    )
    assert span and math.isnan(duckdb.connect().execute("SELECT CAST('NaN' AS FLOAT)").fetchall()[0][0])


@pytest.mark.parametrize("form", FORMATS)
def test_no_rows_are_a_whole_file(form: Any) -> None:
    empty = SCHEMA.empty_table()
    data = written(empty, form)
    expected = {"csv": b'"text"', "tsv": b'"text"', "nl": b"", "json": b"[]\n", "arrow": b""}[form]
    assert data.startswith(expected) and (form != "nl" or not data)
    assert form != "arrow" or pa.ipc.open_stream(data).read_all().equals(empty)


def test_rows_are_streamed_with_parameters_and_a_limit(tmp_path: Path) -> None:
    root = tmp_path / "c"
    create_corpus(root)
    commit_unit(root, make_unit("a", 5))
    sql = "SELECT seq FROM segments WHERE duration_s > $least ORDER BY seq"
    with streamed(root, sql, {"least": "0.1"}, limit=2) as (schema, batches):
        assert schema.names == ["seq"] and [row for batch in batches for row in batch["seq"].to_pylist()] == [0, 1]
    # A hundred million rows would not fit: the first come at once.
    with streamed(root, "SELECT * FROM range(100_000_000_000)", limit=3) as (_, batches):
        assert [batch.num_rows for batch in batches] == [3]
    for values, words in (
        ({}, r"the parameter \$least: give its value with -p least=VALUE"),
        ({"least": "1", "x": ""}, r"no parameter \$x"),
    ):
        with pytest.raises(QueryError, match=words), streamed(root, sql, values):
            pass


def test_an_error_after_the_first_rows_is_one_line(tmp_path: Path) -> None:
    create_corpus(tmp_path / "c")
    sql = "SELECT CASE WHEN range < 300000 THEN range ELSE error('stop here') END AS n FROM range(400000)"
    with (
        pytest.raises(QueryError, match="stop here") as raised,
        streamed(tmp_path / "c", sql) as (schema, batches),
    ):
        write_rows(schema, batches, "csv", io.BytesIO())
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        ("SELECT zzz FROM funnel", "unknown column zzz; list them with"),
        ("SELECT durations FROM segments", "did you mean duration_s?"),
        ("FROM hour()", 'Did you mean "hours"?'),
        ("FROM hours(1, 2)", r"It takes: \"hours\"\(field := 'language'\)"),
        ("SELECT substr(1, 2, 3, 4)", r"It takes: substr\(.* or substr\("),
    ],
)  # fmt: skip
def test_errors_name_candidates(tmp_path: Path, sql: str, words: str) -> None:
    create_corpus(tmp_path / "c")
    with pytest.raises(QueryError, match=words) as raised:
        query(tmp_path / "c", sql)
    assert "\n" not in str(raised.value)
