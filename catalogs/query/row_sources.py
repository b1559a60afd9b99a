"""The sources of the catalog's views as SQL: committed files, without the rows of sources that another unit processed again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

if TYPE_CHECKING:
    import duckdb


def rows_sql(
    connection: duckdb.DuckDBPyConnection,
    kind: str,
    schema: pa.Schema,
    files: Sequence[Path],
    replaced: str = "",
    partial: bool = False,
) -> str:
    """Return SQL for the rows of the files of one kind, or for a typed table without rows if `files` is empty.

    replaced: the result of `replaced_sql` for this kind. partial: whether files may lack columns; then DuckDB must open every file
    to find out.
    """
    empty = connection.from_arrow(schema.empty_table())
    types = dict(zip(empty.columns, [str(kind) for kind in empty.types], strict=True))
    nothing = "SELECT " + ", ".join(f'CAST(NULL AS {types[name]}) AS "{name}"' for name in types) + " WHERE false"
    if not files:
        return f"({nothing})"
    listed = list_sql(str(path) for path in files)
    if kind == "records":
        columns = ", ".join(f'"{name}": {quoted("JSON" if name == "stats" else types[name])}' for name in types)
        return f"read_json({listed}, format = 'auto', records = true, columns = {{{columns}}})"
    by_name = ", union_by_name = true" if partial else ""
    rows = f"read_parquet({listed}{by_name})"
    if replaced:
        rows = (
            f"(SELECT * EXCLUDE (filename) FROM read_parquet({listed}, filename = true{by_name}) AS rows "
            f"ANTI JOIN {replaced})"
        )
    return f"({nothing} UNION ALL BY NAME SELECT * FROM {rows})" if partial else rows


def replaced_sql(root: Path, kind: str, files: Mapping[str, Sequence[Path]], older: Sequence[Mapping[str, Any]]) -> str:
    """Return SQL for the rows of one kind whose sources were processed again in another unit, to be joined by file.

    Empty if there are none. older: the records of units that hold such sources.
    """
    if kind in ("descriptions", "checks", "decoupled"):
        unit_of = {record["unit_id"]: record for record in older}
        made = [
            (str(path), str(root / file["path"]), source)
            for path in files[kind]
            for file in unit_of.get(path.stem, {"files": ()})["files"]
            if file["kind"] == "index"
            for source in unit_of[path.stem]["superseded"]
        ]
        if not made:
            return ""
        indexes = list_sql(sorted({index for _, index, _ in made}))
        return (
            f"(SELECT made.filename, rows.segment_id FROM read_parquet({indexes}, filename = true) AS rows "
            f"JOIN (VALUES {_tuples(made)}) AS made(filename, index_file, source_id) "
            "ON rows.filename = made.index_file AND rows.source_id = made.source_id) AS gone USING (filename, segment_id)"
        )
    rows = [
        (str(root / file["path"]), source)
        for record in older
        for file in record["files"]
        if file["kind"] == kind and kind != "references"
        for source in record["superseded"]
    ]
    return f"(VALUES {_tuples(rows)}) AS gone(filename, source_id) USING (filename, source_id)" if rows else ""


def present_pairs_sql(references: str, index: str) -> str:
    """Return SQL for the pairs whose two segments are both present, each once. Two attempts at a source may hold the same pair."""
    present = f"(SELECT segment_id FROM {index})"
    return (
        f"(SELECT DISTINCT ON (segment_id, reference_id) * FROM {references} "
        f"WHERE segment_id IN {present} AND reference_id IN {present})"
    )


def columns_sql(names: Iterable[str]) -> str:
    """Return column names for a SELECT. They are quoted because `full` is an SQL keyword."""
    return ", ".join(f'"{name}"' for name in names)


def list_sql(texts: Iterable[str]) -> str:
    """Return an SQL list of strings."""
    return "[" + ", ".join(quoted(text) for text in texts) + "]"


def quoted(text: str) -> str:
    """Return an SQL string."""
    return "'" + text.replace("'", "''") + "'"


def _tuples(rows: Iterable[Sequence[str]]) -> str:
    return ", ".join("(" + ", ".join(quoted(text) for text in row) + ")" for row in rows)
